//! The values that a pickle of torch makes: storages, tensors, and dicts of them.

use std::cell::RefCell;
use std::rc::Rc;

/// A tensor of a state dict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TorchTensor {
    pub(super) storage: Rc<Storage>,
    /// In elements, into the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Memory that tensors share.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// Such as `FloatStorage`; for untyped memory, the type with which a tensor reads it, such as
    /// `float8_e4m3fn`.
    pub(super) class: Rc<str>,
    /// The name of its bytes in the file.
    pub(super) key: Rc<str>,
    /// Number of elements.
    pub(super) len: u64,
}

/// A value on the stack of the unpickler.
#[derive(Debug, Clone)]
pub(super) enum PickleValue {
    Mark,
    Int(i64),
    Text(Rc<str>),
    /// A class or a function, as `module.name`.
    Global(Rc<str>),
    /// Its items, and how deeply they are nested.
    Tuple(Rc<[PickleValue]>, u8),
    /// A list; only its texts are kept.
    Texts(Rc<RefCell<Vec<Rc<str>>>>),
    /// A dict; only its tensors are kept, by name.
    Tensors(Rc<RefCell<NamedTensors>>),
    Storage(Rc<Storage>),
    Tensor(Rc<TorchTensor>),
    /// Any value that does not matter for tensors.
    Other,
}

impl Storage {
    /// The storage that a persistent id stands for: `("storage", class, key, device, elements)`.
    pub(super) fn of_persistent_id(id: &PickleValue) -> Option<Self> {
        let PickleValue::Tuple(parts, _) = id else { return None };
        match &parts[..] {
            [
                PickleValue::Text(kind),
                PickleValue::Global(class),
                PickleValue::Text(key),
                _,
                PickleValue::Int(len),
                ..,
            ] if &**kind == "storage" => {
                let class = class.rsplit('.').next()?.into();
                let len = u64::try_from(*len).ok()?;
                Some(Self { class, key: Rc::clone(key), len })
            }
            _ => None,
        }
    }
}

impl PickleValue {
    /// The result of calling this value; a function that makes no tensors yields
    /// [`Other`](Self::Other).
    pub(super) fn call(&self, arguments: &Self) -> Self {
        let (PickleValue::Global(function), PickleValue::Tuple(arguments, _)) = (self, arguments)
        else {
            return PickleValue::Other;
        };
        match (&**function, &arguments[..]) {
            ("collections.OrderedDict", []) => PickleValue::Tensors(Rc::default()),
            ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", parts) => {
                tensor(parts).unwrap_or(PickleValue::Other)
            }
            // Newer element types have no storage class of their own; the type is a later argument.
            (
                "torch._utils._rebuild_tensor_v3",
                [
                    PickleValue::Storage(storage),
                    offset,
                    shape,
                    strides,
                    _,
                    _,
                    PickleValue::Global(dtype),
                    ..,
                ],
            ) => {
                let class = dtype.rsplit('.').next().unwrap_or(dtype).into();
                let storage = Storage { class, key: Rc::clone(&storage.key), len: storage.len };
                let storage = PickleValue::Storage(Rc::new(storage));
                let parts = [storage, offset.clone(), shape.clone(), strides.clone()];
                tensor(&parts).unwrap_or(PickleValue::Other)
            }
            // State holds attributes of the parameter, which do not change its values.
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [tensor @ PickleValue::Tensor(_), ..],
            ) => tensor.clone(),
            (
                "torch._tensor._rebuild_from_type_v2",
                [inner @ PickleValue::Global(name), _, arguments, ..],
            ) if name.starts_with("torch._utils.") => inner.call(arguments),
            _ => PickleValue::Other,
        }
    }
}

/// A tensor of `(storage, offset, shape, strides, …)`.
fn tensor(parts: &[PickleValue]) -> Option<PickleValue> {
    let [PickleValue::Storage(storage), PickleValue::Int(offset), shape, strides, ..] = parts
    else {
        return None;
    };
    let sizes = |value: &PickleValue| match value {
        PickleValue::Tuple(items, _) => items
            .iter()
            .map(|item| match item {
                PickleValue::Int(size) => usize::try_from(*size).ok(),
                _ => None,
            })
            .collect::<Option<Vec<usize>>>(),
        _ => None,
    };
    Some(PickleValue::Tensor(Rc::new(TorchTensor {
        storage: Rc::clone(storage),
        offset: u64::try_from(*offset).ok()?,
        shape: sizes(shape)?,
        strides: sizes(strides)?,
    })))
}

/// The tensors of a dict, in its order.
type NamedTensors = Vec<(Rc<str>, Rc<TorchTensor>)>;
