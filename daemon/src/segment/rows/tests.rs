//! Outputs on the heap, their rows, and their end.

use crate::segment::result::Finished;
use crate::segment::rows::{Aligned, Output, Row};
use std::thread;

#[test]
fn rows_written_by_many_threads_come_out_in_order() {
    let mut output = Output::heap(1000, 3);
    let rows = output.take_rows();
    assert_eq!(rows.len(), 1000);
    assert!(output.take_rows().is_empty(), "each row once");
    thread::scope(|scope| {
        for (chunk, mut rows) in chunks(rows, 100).into_iter().enumerate() {
            scope.spawn(move || {
                for (index, row) in rows.iter_mut().enumerate() {
                    row.as_mut_slice().fill((chunk * 100 + index) as f32);
                }
            });
        }
    });
    let Ok(Finished::Inline(bytes)) = output.finish() else { panic!("not inline") };
    let expected: Vec<u8> =
        (0..1000).flat_map(|row| (row as f32).to_le_bytes().repeat(3)).collect();
    assert_eq!(bytes, expected);
}

fn chunks(rows: Vec<Row>, size: usize) -> Vec<Vec<Row>> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(|| Some(rows.by_ref().take(size).collect::<Vec<_>>()))
        .take_while(|chunk| !chunk.is_empty())
        .collect()
}

#[test]
fn an_output_is_not_finished_before_its_last_row() {
    let mut output = Output::heap(2, 1);
    let mut rows = output.take_rows();
    rows.pop();
    let mut output = output.finish().unwrap_err();
    assert_eq!(output.values(), None);
    rows.pop();
    assert_eq!(output.values(), Some(&[0.0; 2][..]));
    assert!(matches!(output.finish(), Ok(Finished::Inline(bytes)) if bytes == [0; 8]));
}

#[test]
fn empty_shapes_are_well_behaved() {
    for (rows, dimension) in [(0, 0), (0, 5), (5, 0)] {
        let mut output = Output::heap(rows, dimension);
        let mut taken = output.take_rows();
        assert_eq!(taken.len(), rows);
        for row in &mut taken {
            assert_eq!(row.as_mut_slice().len(), 0);
        }
        drop(taken);
        assert!(matches!(output.finish(), Ok(Finished::Inline(bytes)) if bytes.is_empty()));
    }
}

#[test]
fn unaligned_memory_is_moved_into_place() {
    let mut aligned = Aligned::new(8);
    // As if the allocator had given an odd address.
    aligned.bytes = vec![9, 1, 2, 3, 4, 5, 6, 7, 8];
    aligned.padding = 1;
    assert_eq!(aligned.into_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn debugging_an_output_does_not_read_its_values() {
    let mut output = Output::heap(1, 1000);
    let rows = output.take_rows();
    assert!(format!("{output:?} {rows:?}").len() < 400);
}

#[test]
fn a_row_is_small() {
    assert_eq!(size_of::<Row>(), 3 * size_of::<usize>());
}
