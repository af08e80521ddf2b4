//! The subset of Python's pickle format that a state dict of torch needs. It never runs code.
//!
//! A pickle is a program for a small stack machine. This machine implements only the few functions
//! that make tensors; a call of any other function yields [`PickleValue::Other`]. Each instruction
//! pushes at most one value of bounded size, values are shared and never copied, and nesting is
//! bounded: a hostile pickle costs time and memory in proportion to its own length.

use std::collections::HashMap;
use std::rc::Rc;

use crate::checkpoint::weights::pickle_values::{PickleValue, Storage};

/// Reads consecutive pickles.
#[derive(Debug)]
pub(super) struct Unpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<PickleValue>,
    memo: HashMap<u32, PickleValue>,
    storages: Vec<Rc<Storage>>,
}

/// What is wrong with a pickle, and the byte at which reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PickleFault {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

impl<'a> Unpickler<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stack: Vec::new(), memo: HashMap::new(), storages: Vec::new() }
    }

    /// The storages that all pickles so far mention.
    pub(super) fn storages(&self) -> &[Rc<Storage>] {
        &self.storages
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The value of the next pickle.
    pub(super) fn next(&mut self) -> Result<PickleValue, PickleFault> {
        self.stack.clear();
        self.memo.clear();
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(value)) => return Ok(value),
                Err(what) => return Err(PickleFault { at: self.at, what }),
            }
        }
    }

    /// Runs one instruction; the last one yields the pickle's value.
    fn step(&mut self) -> StepResult<Option<PickleValue>> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => _ = self.take(1)?,                           // PROTO
            0x95 => _ = self.take(8)?,                           // FRAME
            b'(' => self.push(PickleValue::Mark),                // MARK
            b'0' => _ = self.pop()?,                             // POP
            b'N' | 0x88 | 0x89 => self.push(PickleValue::Other), // NONE, NEWTRUE, NEWFALSE
            b'G' => {
                // BINFLOAT
                self.take(8)?;
                self.push(PickleValue::Other);
            }
            b'K' => {
                // BININT1
                let value = i64::from(self.byte()?);
                self.push(PickleValue::Int(value));
            }
            b'M' => {
                // BININT2
                let value = u16::from_le_bytes(self.array()?);
                self.push(PickleValue::Int(value.into()));
            }
            b'J' => {
                // BININT
                let value = i32::from_le_bytes(self.array()?);
                self.push(PickleValue::Int(value.into()));
            }
            0x8A => {
                // LONG1
                let value = self.long()?;
                self.push(value);
            }
            b'X' => {
                // BINUNICODE
                let len = u32::from_le_bytes(self.array()?);
                self.text(len as usize)?;
            }
            0x8C => {
                // SHORT_BINUNICODE
                let len = self.byte()?;
                self.text(len.into())?;
            }
            b'c' => {
                // GLOBAL
                let (module, name) = (self.line()?, self.line()?);
                self.push(PickleValue::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                // STACK_GLOBAL
                let (PickleValue::Text(name), PickleValue::Text(module)) =
                    (self.pop()?, self.pop()?)
                else {
                    return Err("a class has no name");
                };
                self.push(PickleValue::Global(format!("{module}.{name}").into()));
            }
            b']' => self.push(PickleValue::Texts(Rc::default())), // EMPTY_LIST
            b'}' => self.push(PickleValue::Tensors(Rc::default())), // EMPTY_DICT
            b')' => self.push(PickleValue::Tuple([].into(), 1)),  // EMPTY_TUPLE
            0x85 => self.tuple(1)?,                               // TUPLE1
            0x86 => self.tuple(2)?,                               // TUPLE2
            0x87 => self.tuple(3)?,                               // TUPLE3
            b't' => {
                // TUPLE
                let len = self.since_mark()?;
                self.tuple(len)?;
                let tuple = self.pop()?;
                self.pop()?;
                self.push(tuple);
            }
            b'q' => {
                // BINPUT
                let key = self.byte()?;
                self.remember(key.into())?;
            }
            b'r' => {
                // LONG_BINPUT
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => {
                // MEMOIZE
                let key = u32::try_from(self.memo.len()).map_err(|_| "its memo is full")?;
                self.remember(key)?;
            }
            b'h' => {
                // BINGET
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                // LONG_BINGET
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'a' => {
                // APPEND
                let item = self.pop()?;
                self.append([item])?;
            }
            b'e' => {
                // APPENDS
                let items = self.cut_at_mark()?;
                self.append(items)?;
            }
            b's' => {
                // SETITEM
                let (value, key) = (self.pop()?, self.pop()?);
                self.set([key, value].into())?;
            }
            b'u' => {
                // SETITEMS
                let items = self.cut_at_mark()?;
                self.set(items)?;
            }
            b'Q' => {
                // BINPERSID
                let id = self.pop()?;
                let storage = Storage::of_persistent_id(&id).map(Rc::new);
                self.storages.extend(storage.clone());
                self.push(storage.map_or(PickleValue::Other, PickleValue::Storage));
            }
            b'R' | 0x81 => {
                // REDUCE, NEWOBJ
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push(function.call(&arguments));
            }
            // BUILD sets attributes, none of which matter.
            b'b' => _ = self.pop()?,
            _ => return Err("it has an instruction that no state dict needs"),
        }
        Ok(None)
    }

    fn push(&mut self, value: PickleValue) {
        self.stack.push(value);
    }

    fn pop(&mut self) -> StepResult<PickleValue> {
        self.stack.pop().ok_or(UNDERFLOW)
    }

    fn take(&mut self, len: usize) -> StepResult<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or(CUT_OFF)?;
        let taken = self.bytes.get(self.at..end).ok_or(CUT_OFF)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> StepResult<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> StepResult<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| CUT_OFF)
    }

    fn line(&mut self) -> StepResult<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT_OFF)?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name is not UTF-8")
    }

    fn text(&mut self, len: usize) -> StepResult<()> {
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "a text is not UTF-8")?;
        self.push(PickleValue::Text(text.into()));
        Ok(())
    }

    fn long(&mut self) -> StepResult<PickleValue> {
        let len = self.byte()?;
        let bytes = self.take(len.into())?;
        if bytes.len() > 8 {
            return Ok(PickleValue::Other);
        }
        let fill = if bytes.last().is_some_and(|last| *last >= 0x80) { 0xFF } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(PickleValue::Int(i64::from_le_bytes(wide)))
    }

    /// Values above the topmost mark.
    fn since_mark(&self) -> StepResult<usize> {
        let is_mark = |value: &PickleValue| matches!(value, PickleValue::Mark);
        self.stack.iter().rev().position(is_mark).ok_or("it ends a list that was not begun")
    }

    fn cut_at_mark(&mut self) -> StepResult<Vec<PickleValue>> {
        let items = self.stack.split_off(self.stack.len() - self.since_mark()?);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, len: usize) -> StepResult<()> {
        let first = self.stack.len().checked_sub(len).ok_or(UNDERFLOW)?;
        let items = self.stack.split_off(first);
        let depth =
            |value: &PickleValue| if let PickleValue::Tuple(_, depth) = value { *depth } else { 0 };
        let depth = 1 + items.iter().map(depth).max().unwrap_or(0);
        if depth > MAX_TUPLE_DEPTH {
            return Err("its tuples are nested too deeply");
        }
        self.push(PickleValue::Tuple(items.into(), depth));
        Ok(())
    }

    fn remember(&mut self, key: u32) -> StepResult<()> {
        let value = self.stack.last().ok_or(UNDERFLOW)?.clone();
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> StepResult<()> {
        let value = self.memo.get(&key).ok_or("it recalls a value that it never stored")?.clone();
        self.push(value);
        Ok(())
    }

    fn append(&mut self, items: impl IntoIterator<Item = PickleValue>) -> StepResult<()> {
        if let PickleValue::Texts(list) = self.stack.last().ok_or(UNDERFLOW)? {
            let texts = items.into_iter().filter_map(|item| match item {
                PickleValue::Text(text) => Some(text),
                _ => None,
            });
            list.borrow_mut().extend(texts);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<PickleValue>) -> StepResult<()> {
        if let PickleValue::Tensors(dict) = self.stack.last().ok_or(UNDERFLOW)? {
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                if let (PickleValue::Text(key), PickleValue::Tensor(tensor)) = (key, value) {
                    dict.borrow_mut().push((key, tensor));
                }
            }
        }
        Ok(())
    }
}

/// Levels of nested tuples, at most; the arguments of a tensor need three.
const MAX_TUPLE_DEPTH: u8 = 8;

type StepResult<T> = Result<T, &'static str>;

const CUT_OFF: &str = "it is cut off";
const UNDERFLOW: &str = "it takes more from its stack than it put there";
