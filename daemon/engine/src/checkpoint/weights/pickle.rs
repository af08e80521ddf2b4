//! As much of Python's pickle as a state dict of torch needs, and nothing that it could run.
//!
//! A pickle is a program for a small stack machine. This one knows values, and of all functions
//! that a pickle may name the few that make tensors; whatever else it is told to call becomes
//! [`Value::Other`]. Each instruction pushes at most one value of bounded size, values are shared and
//! never copied, and nesting is bounded: a hostile pickle costs time and memory in proportion to
//! its own length.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Tuples in tuples, at most: the arguments of a tensor need three.
const MAX_DEPTH: u8 = 8;

/// A tensor of a state dict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TorchTensor {
    pub(crate) storage: Rc<Storage>,
    /// In elements, into the storage.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// Memory that tensors share.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Such as `FloatStorage`; of memory without a type, the type that a tensor reads it as, such
    /// as `float8_e4m3fn`.
    pub(crate) class: Rc<str>,
    /// What its bytes are called.
    pub(crate) key: Rc<str>,
    /// Elements.
    pub(crate) len: u64,
}

/// Tensors as a dict holds them.
type NamedTensors = Vec<(Rc<str>, Rc<TorchTensor>)>;

/// What a pickle makes.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Mark,
    Int(i64),
    Text(Rc<str>),
    /// A class or a function, as `module.name`.
    Global(Rc<str>),
    Tuple(Rc<[Value]>, u8),
    /// Of a list only texts are kept.
    Texts(Rc<RefCell<Vec<Rc<str>>>>),
    /// Of a dict only the tensors are kept, by name.
    Tensors(Rc<RefCell<NamedTensors>>),
    Storage(Rc<Storage>),
    Tensor(Rc<TorchTensor>),
    /// Whatever is of no interest here.
    Other,
}

/// What is wrong with a pickle, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PickleFault {
    pub(crate) at: usize,
    pub(crate) what: &'static str,
}

/// Reads one pickle behind another.
#[derive(Debug)]
pub(crate) struct Unpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    storages: Vec<Rc<Storage>>,
}

type Step<T> = Result<T, &'static str>;

const CUT_OFF: &str = "it is cut off";
const UNDERFLOW: &str = "it takes more from its stack than is there";

impl<'a> Unpickler<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stack: Vec::new(), memo: HashMap::new(), storages: Vec::new() }
    }

    /// The memory that all pickles so far told of.
    pub(crate) fn storages(&self) -> &[Rc<Storage>] {
        &self.storages
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// What the next pickle makes.
    pub(crate) fn next(&mut self) -> Result<Value, PickleFault> {
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

    /// One instruction; a value at the end.
    fn step(&mut self) -> Step<Option<Value>> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => _ = self.take(1)?,                     // PROTO
            0x95 => _ = self.take(8)?,                     // FRAME
            b'(' => self.push(Value::Mark),                // MARK
            b'0' => _ = self.pop()?,                       // POP
            b'N' | 0x88 | 0x89 => self.push(Value::Other), // NONE, NEWTRUE, NEWFALSE
            b'G' => {
                // BINFLOAT
                self.take(8)?;
                self.push(Value::Other);
            }
            b'K' => {
                // BININT1
                let value = i64::from(self.byte()?);
                self.push(Value::Int(value));
            }
            b'M' => {
                // BININT2
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'J' => {
                // BININT
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
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
                self.push(Value::Global(format!("{module}.{name}").into()));
            }
            0x93 => {
                // STACK_GLOBAL
                let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                    return Err("a class has no name");
                };
                self.push(Value::Global(format!("{module}.{name}").into()));
            }
            b']' => self.push(Value::Texts(Rc::default())), // EMPTY_LIST
            b'}' => self.push(Value::Tensors(Rc::default())), // EMPTY_DICT
            b')' => self.push(Value::Tuple([].into(), 1)),  // EMPTY_TUPLE
            0x85 => self.tuple(1)?,                         // TUPLE1
            0x86 => self.tuple(2)?,                         // TUPLE2
            0x87 => self.tuple(3)?,                         // TUPLE3
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
                let storage = storage(&id).map(Rc::new);
                self.storages.extend(storage.clone());
                self.push(storage.map_or(Value::Other, Value::Storage));
            }
            b'R' | 0x81 => {
                // REDUCE, NEWOBJ
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push(called(&function, &arguments));
            }
            // BUILD: of what it adds to an object nothing is of interest.
            b'b' => _ = self.pop()?,
            _ => return Err("it has an instruction that no state dict needs"),
        }
        Ok(None)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn pop(&mut self) -> Step<Value> {
        self.stack.pop().ok_or(UNDERFLOW)
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or(CUT_OFF)?;
        let taken = self.bytes.get(self.at..end).ok_or(CUT_OFF)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| CUT_OFF)
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT_OFF)?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name is not UTF-8")
    }

    fn text(&mut self, len: usize) -> Step<()> {
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "a text is not UTF-8")?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn long(&mut self) -> Step<Value> {
        let len = self.byte()?;
        let bytes = self.take(len.into())?;
        if bytes.len() > 8 {
            return Ok(Value::Other);
        }
        let fill = if bytes.last().is_some_and(|last| *last >= 0x80) { 0xFF } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    /// Values above the topmost mark.
    fn since_mark(&self) -> Step<usize> {
        let is_mark = |value: &Value| matches!(value, Value::Mark);
        self.stack.iter().rev().position(is_mark).ok_or("it ends a list that was not begun")
    }

    fn cut_at_mark(&mut self) -> Step<Vec<Value>> {
        let items = self.stack.split_off(self.stack.len() - self.since_mark()?);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, len: usize) -> Step<()> {
        let first = self.stack.len().checked_sub(len).ok_or(UNDERFLOW)?;
        let items = self.stack.split_off(first);
        let depth = |value: &Value| if let Value::Tuple(_, depth) = value { *depth } else { 0 };
        let depth = 1 + items.iter().map(depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err("its tuples are nested too deeply");
        }
        self.push(Value::Tuple(items.into(), depth));
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Step<()> {
        let value = self.stack.last().ok_or(UNDERFLOW)?.clone();
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let value = self.memo.get(&key).ok_or("it recalls what it never had")?.clone();
        self.push(value);
        Ok(())
    }

    fn append(&mut self, items: impl IntoIterator<Item = Value>) -> Step<()> {
        if let Value::Texts(list) = self.stack.last().ok_or(UNDERFLOW)? {
            let texts = items.into_iter().filter_map(|item| match item {
                Value::Text(text) => Some(text),
                _ => None,
            });
            list.borrow_mut().extend(texts);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value>) -> Step<()> {
        if let Value::Tensors(dict) = self.stack.last().ok_or(UNDERFLOW)? {
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                if let (Value::Text(key), Value::Tensor(tensor)) = (key, value) {
                    dict.borrow_mut().push((key, tensor));
                }
            }
        }
        Ok(())
    }
}

/// What a persistent id stands for: `("storage", class, key, device, elements)`.
fn storage(id: &Value) -> Option<Storage> {
    let Value::Tuple(parts, _) = id else { return None };
    match &parts[..] {
        [Value::Text(kind), Value::Global(class), Value::Text(key), _, Value::Int(len), ..]
            if &**kind == "storage" =>
        {
            let class = class.rsplit('.').next()?.into();
            let len = u64::try_from(*len).ok()?;
            Some(Storage { class, key: Rc::clone(key), len })
        }
        _ => None,
    }
}

/// What a call makes.
fn called(function: &Value, arguments: &Value) -> Value {
    let (Value::Global(function), Value::Tuple(arguments, _)) = (function, arguments) else {
        return Value::Other;
    };
    match (&**function, &arguments[..]) {
        ("collections.OrderedDict", []) => Value::Tensors(Rc::default()),
        ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", parts) => {
            tensor(parts).unwrap_or(Value::Other)
        }
        // Of newer element types, which have no storage class of their own: the type stands behind.
        (
            "torch._utils._rebuild_tensor_v3",
            [Value::Storage(storage), offset, shape, strides, _, _, Value::Global(dtype), ..],
        ) => {
            let class = dtype.rsplit('.').next().unwrap_or(dtype).into();
            let storage = Storage { class, key: Rc::clone(&storage.key), len: storage.len };
            let storage = Value::Storage(Rc::new(storage));
            let parts = [storage, offset.clone(), shape.clone(), strides.clone()];
            tensor(&parts).unwrap_or(Value::Other)
        }
        // With state: the attributes that somebody gave it, which say nothing of its values.
        (
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
            [tensor @ Value::Tensor(_), ..],
        ) => tensor.clone(),
        (
            "torch._tensor._rebuild_from_type_v2",
            [inner @ Value::Global(name), _, arguments, ..],
        ) if name.starts_with("torch._utils.") => called(inner, arguments),
        _ => Value::Other,
    }
}

/// A tensor of `(storage, offset, shape, strides, …)`.
fn tensor(parts: &[Value]) -> Option<Value> {
    let [Value::Storage(storage), Value::Int(offset), shape, strides, ..] = parts else {
        return None;
    };
    let sizes = |value: &Value| match value {
        Value::Tuple(items, _) => items
            .iter()
            .map(|item| match item {
                Value::Int(size) => usize::try_from(*size).ok(),
                _ => None,
            })
            .collect::<Option<Vec<usize>>>(),
        _ => None,
    };
    Some(Value::Tensor(Rc::new(TorchTensor {
        storage: Rc::clone(storage),
        offset: u64::try_from(*offset).ok()?,
        shape: sizes(shape)?,
        strides: sizes(strides)?,
    })))
}
