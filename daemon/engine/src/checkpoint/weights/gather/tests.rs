use super::*;
use proptest::prelude::{Just, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy;

/// A shape, an order of its dimensions, gaps between their steps, and rows.
fn tensors() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, Vec<usize>, (usize, usize))> {
    proptest::collection::vec(1usize..6, 1..5).prop_flat_map(|shape| {
        let order = Just((0..shape.len()).collect::<Vec<_>>()).prop_shuffle();
        let gaps = proptest::collection::vec(0usize..3, shape.len());
        let rows = (0..=shape[0], 0..=shape[0]);
        (Just(shape), order, gaps, rows)
    })
}

/// Elements of the file before the tensor.
const BEFORE: usize = 5;

fn file_of(elements: u64) -> (tempfile::NamedTempFile, TensorFile) {
    let numbers = (0..BEFORE as u64 + elements).map(|number| u32::try_from(number).unwrap());
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let opened = TensorFile::open(file.path()).unwrap();
    (file, opened)
}

fn read(file: &TensorFile, shape: &[usize], strides: &Strides, rows: Range<usize>) -> Vec<usize> {
    let entry = TensorEntry {
        dtype: "U32".into(),
        shape: shape.to_vec(),
        strides: Some(strides.clone()),
        start: 4 * BEFORE as u64,
        len_bytes: 0,
    };
    let mut values = vec![usize::MAX; rows.len() * shape[1..].iter().product::<usize>()];
    let number = |element: u32| u32::from_le(element) as usize - BEFORE;
    file.gather(&entry, strides, rows, &mut values, number).unwrap();
    values
}

proptest! {
    #[test]
    fn every_value_is_read_to_its_position(
        (shape, order, gaps, (from, to)) in tensors()
    ) {
        let mut sizes = vec![0; shape.len()];
        let mut next = 1;
        for (at, gap) in order.iter().zip(gaps) {
            sizes[*at] = next + gap;
            next = (next + gap) * shape[*at];
        }
        let strides = Strides::of(&shape, &sizes).unwrap();
        prop_assert!(strides.extent() <= len_u64(next));
        let (_kept, file) = file_of(strides.extent());
        let rows = from.min(to)..from.max(to);
        let mut want = vec![rows.clone().map(|row| row * sizes[0]).collect::<Vec<_>>()];
        for (size, stride) in shape.iter().zip(&sizes).skip(1) {
            let last = want.last().unwrap();
            let steps = |at: &usize| (0..*size).map(move |step| *at + step * stride).collect();
            want.push(last.iter().map(steps).collect::<Vec<Vec<usize>>>().concat());
        }
        prop_assert_eq!(read(&file, &shape, &strides, rows), want.pop().unwrap());
    }
}

#[test]
fn values_far_from_each_other_and_close_together_are_read_in_pieces() {
    let shape = [700, 301];
    for strides in [[1, 700], [1, 50_000], [3, 2101], [50_001, 1], [301 * 7, 7]] {
        let (_kept, file) = file_of(Strides::of(&shape, &strides).unwrap().extent());
        let of = Strides::of(&shape, &strides).unwrap();
        for rows in [0..700, 0..1, 699..700, 100..350] {
            let place = |row| (0..301).map(move |i| row * strides[0] + i * strides[1]);
            let want: Vec<usize> = rows.clone().flat_map(place).collect();
            assert!(read(&file, &shape, &of, rows) == want, "{strides:?}");
        }
    }
}

#[test]
fn overlapping_values_are_refused() {
    let extent = |shape: &[usize], strides: &[usize]| {
        Strides::of(shape, strides).map(|strides| strides.extent())
    };
    assert_eq!(extent(&[3, 4], &[1, 3]), Some(12));
    assert_eq!(extent(&[3, 4], &[9, 2]), Some(25));
    assert_eq!(extent(&[1, 4], &[0, 1]), Some(4));
    assert_eq!(extent(&[3, 4], &[1, 0]), None);
    assert_eq!(extent(&[3, 4], &[1, 2]), None);
    assert_eq!(extent(&[3, 4], &[3, 1]), None);
    assert_eq!(extent(&[2, 2], &[1]), None);
    assert_eq!(extent(&[2, 2], &[1, usize::MAX]), None);
    assert_eq!(extent(&[usize::MAX, 2], &[2, 1]), None);
}
