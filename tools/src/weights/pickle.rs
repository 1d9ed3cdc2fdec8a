//! Reads Python pickles without executing anything.
//!
//! The machine builds a graph of plain nodes. Where a pickle would call a function, a
//! node records the function, which must be on a fixed allow-list, and its arguments. The
//! reader of each format interprets them. Nodes are in one list and refer to each other
//! by index, so no input can overflow the stack, not even one with cycles.

use thiserror::Error;

/// Why a pickle is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PickleError {
    /// The bytes end within an instruction.
    #[error("the pickle is cut short at byte {at}")]
    Short {
        /// Offset within the pickle.
        at: usize,
    },
    /// A function that is not on the allow-list.
    #[error("the pickle refers to {name}, which weights do not need; it is refused")]
    Forbidden {
        /// Module and name.
        name: String,
    },
    /// An instruction that pickles of weights do not use.
    #[error(
        "the pickle has instruction {opcode:#04x} at byte {at}, which weights do not need; it is refused"
    )]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Offset within the pickle.
        at: usize,
    },
    /// Instructions that do not fit together.
    #[error("the pickle is malformed at byte {at}: {reason}")]
    Malformed {
        /// Offset within the pickle.
        at: usize,
        /// What does not fit.
        reason: &'static str,
    },
}

/// The allow-list: functions and classes that weights refer to. None of them is ever
/// called.
const ALLOWED: [(&str, &str); 21] = [
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "FloatStorage"),
    ("torch", "DoubleStorage"),
    ("torch", "HalfStorage"),
    ("torch", "BFloat16Storage"),
    ("torch", "LongStorage"),
    ("torch", "IntStorage"),
    ("torch", "ShortStorage"),
    ("torch", "CharStorage"),
    ("torch", "ByteStorage"),
    ("torch", "BoolStorage"),
    ("torch", "Size"),
];

/// Limit of nodes. The state dict of a large network has some ten thousand.
const MAX_NODES: usize = 4_000_000;

/// Index of a node.
pub type Id = usize;

/// One value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer of up to 64 bits; larger ones are kept as `Bytes`, little-endian.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string (UTF-8, or raw from Python 2) or bytes, as a range of the input.
    Bytes(std::ops::Range<usize>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary, in order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A function or class, as an index into the allow-list.
    Global(usize),
    /// A call: the function, its arguments, and the state set afterwards.
    Call {
        /// The function, a `Global`.
        function: Id,
        /// The arguments, a `Tuple`.
        arguments: Id,
        /// The argument of `__setstate__`.
        state: Option<Id>,
        /// Items set afterwards (an OrderedDict is created by a call, then filled).
        items: Vec<(Id, Id)>,
    },
    /// A reference to data outside the pickle.
    Persistent(Id),
}

/// A pickle that was read.
pub struct Pickle<'a> {
    input: &'a [u8],
    nodes: Vec<Node>,
    root: Id,
    length: usize,
}

impl<'a> Pickle<'a> {
    /// All nodes, in reading order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Reads one pickle from the start of `input`. Fails if it is cut short, malformed,
    /// or refers to anything that is not on the allow-list.
    pub fn read(input: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(input);
        let root = machine.run()?;
        Ok(Self { input, nodes: machine.nodes, root, length: machine.at })
    }

    /// The readable part of a pickle that `read` refuses: the nodes, and the IDs of those
    /// that were not yet part of another one, in order.
    pub fn remains(input: &'a [u8]) -> (Self, Vec<Id>) {
        let mut machine = Machine::new(input);
        // The caller already knows the error.
        let root = machine.run().unwrap_or_default();
        (Self { input, nodes: machine.nodes, root, length: machine.at }, machine.stack)
    }

    /// Number of input bytes that the pickle takes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The top-level value.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The node with an ID.
    pub fn node(&self, id: Id) -> &Node {
        // IDs come from this pickle; one of another pickle may find `None`.
        self.nodes.get(id).unwrap_or(&Node::None)
    }

    /// The bytes, or the bytes of a string.
    pub fn bytes(&self, id: Id) -> Option<&'a [u8]> {
        match self.node(id) {
            Node::Bytes(range) => self.input.get(range.clone()),
            _ => None,
        }
    }

    /// A string, if it is valid UTF-8.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        self.bytes(id).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// An integer that is not negative.
    pub fn index(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// Members of a tuple or list.
    pub fn members(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(members) | Node::List(members) => Some(members),
            _ => None,
        }
    }

    /// Entries of a dictionary or of an OrderedDict.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            Node::Call { items, .. } if self.called(id)? == ("collections", "OrderedDict") => {
                Some(items)
            }
            _ => None,
        }
    }

    /// Module and name of a function or class.
    pub fn global(&self, id: Id) -> Option<(&'static str, &'static str)> {
        match self.node(id) {
            Node::Global(index) => ALLOWED.get(*index).copied(),
            _ => None,
        }
    }

    /// Module and name of the function that a call calls.
    pub fn called(&self, id: Id) -> Option<(&'static str, &'static str)> {
        match self.node(id) {
            Node::Call { function, .. } => self.global(*function),
            _ => None,
        }
    }

    /// Arguments of a call.
    pub fn arguments(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Call { arguments, .. } => self.members(*arguments),
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

impl<'a> Machine<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
        }
    }

    fn malformed<T>(&self, reason: &'static str) -> Result<T, PickleError> {
        Err(PickleError::Malformed { at: self.at, reason })
    }

    fn range(&mut self, length: usize) -> Result<std::ops::Range<usize>, PickleError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.input.len());
        let Some(end) = end else { return Err(PickleError::Short { at: self.at }) };
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let range = self.range(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.input[range]);
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<usize, PickleError> {
        Ok(usize::from(self.take::<1>()?[0]))
    }

    fn short(&mut self) -> Result<usize, PickleError> {
        Ok(usize::from(u16::from_le_bytes(self.take()?)))
    }

    fn word(&mut self) -> Result<usize, PickleError> {
        Ok(u32::from_le_bytes(self.take()?) as usize)
    }

    fn long(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.take()?);
        usize::try_from(length).map_err(|_| PickleError::Short { at: self.at })
    }

    fn line(&mut self) -> Result<std::ops::Range<usize>, PickleError> {
        let rest = &self.input[self.at..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(PickleError::Short { at: self.input.len() });
        };
        let range = self.at..self.at + length;
        self.at += length + 1;
        Ok(range)
    }

    fn number(&mut self) -> Result<i64, PickleError> {
        let range = self.line()?;
        let text = std::str::from_utf8(&self.input[range]).unwrap_or_default();
        match text.trim_end_matches('L').parse() {
            Ok(number) => Ok(number),
            Err(_) => self.malformed("a number cannot be parsed"),
        }
    }

    fn push(&mut self, node: Node) -> Result<(), PickleError> {
        if self.nodes.len() >= MAX_NODES {
            return self.malformed("it holds more values than weights need");
        }
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return self.malformed("the stack is empty");
        }
        match self.stack.pop() {
            Some(id) => Ok(id),
            None => self.malformed("the stack is empty"),
        }
    }

    fn top(&self) -> Result<Id, PickleError> {
        match self.stack.last() {
            Some(id) => Ok(*id),
            None => self.malformed("the stack is empty"),
        }
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.malformed("a mark is missing"),
        }
    }

    fn put(&mut self, key: usize) -> Result<(), PickleError> {
        if key >= MAX_NODES {
            return self.malformed("a memo key is out of range");
        }
        if key >= self.memo.len() {
            self.memo.resize(key + 1, None);
        }
        self.memo[key] = Some(self.top()?);
        Ok(())
    }

    fn get(&mut self, key: usize) -> Result<(), PickleError> {
        match self.memo.get(key).copied().flatten() {
            Some(id) if self.stack.len() < MAX_NODES => {
                self.stack.push(id);
                Ok(())
            }
            _ => self.malformed("a memo key was never set"),
        }
    }

    fn global(
        &mut self,
        module: std::ops::Range<usize>,
        name: std::ops::Range<usize>,
    ) -> Result<(), PickleError> {
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&self.input[range]).into_owned()
        };
        let (module, name) = (text(module), text(name));
        match ALLOWED.iter().position(|allowed| *allowed == (module.as_str(), name.as_str())) {
            Some(index) => self.push(Node::Global(index)),
            None => Err(PickleError::Forbidden { name: format!("{module}.{name}") }),
        }
    }

    fn call(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        if !matches!(self.nodes[function], Node::Global(_))
            || !matches!(self.nodes[arguments], Node::Tuple(_))
        {
            return self.malformed("a call has no function or no tuple of arguments");
        }
        self.push(Node::Call { function, arguments, state: None, items: Vec::new() })
    }

    fn append(&mut self, members: Vec<Id>) -> Result<(), PickleError> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(list) => {
                list.extend(members);
                Ok(())
            }
            _ => self.malformed("items are appended to a value that is not a list"),
        }
    }

    fn set_items(&mut self, members: Vec<Id>) -> Result<(), PickleError> {
        let top = self.top()?;
        if !members.len().is_multiple_of(2) {
            return self.malformed("a key has no value");
        }
        let pairs = members.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match &mut self.nodes[top] {
            Node::Dict(entries) | Node::Call { items: entries, .. } => {
                entries.extend(pairs);
                Ok(())
            }
            _ => self.malformed("items are set on a value that is not a dictionary"),
        }
    }

    fn tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let mut members = Vec::with_capacity(length);
        for _ in 0..length {
            members.push(self.pop()?);
        }
        members.reverse();
        self.push(Node::Tuple(members))
    }

    fn integer(&mut self, length: usize) -> Result<(), PickleError> {
        let range = self.range(length)?;
        let bytes = &self.input[range.clone()];
        if bytes.len() > 8 {
            return self.push(Node::Bytes(range));
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [sign; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(wide)))
    }

    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let at = self.at;
            let opcode = self.take::<1>()?[0];
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.byte()?),
                0x95 => drop(self.long()?),
                b'(' if self.marks.len() >= MAX_NODES => {
                    return self.malformed("the stack is too deep");
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.above_mark()?),
                b'2' => {
                    let top = self.top()?;
                    if self.stack.len() >= MAX_NODES {
                        return self.malformed("the stack is too deep");
                    }
                    self.stack.push(top);
                }
                b'N' => self.push(Node::None)?,
                0x88 => self.push(Node::Bool(true))?,
                0x89 => self.push(Node::Bool(false))?,
                b'I' | b'L' => {
                    let number = self.number()?;
                    self.push(Node::Int(number))?;
                }
                b'J' => {
                    let number = i32::from_le_bytes(self.take()?);
                    self.push(Node::Int(number.into()))?;
                }
                b'K' => {
                    let number = self.byte()?;
                    self.push(Node::Int(number as i64))?;
                }
                b'M' => {
                    let number = self.short()?;
                    self.push(Node::Int(number as i64))?;
                }
                0x8a => {
                    let length = self.byte()?;
                    self.integer(length)?;
                }
                0x8b => {
                    let length = self.word()?;
                    self.integer(length)?;
                }
                b'G' => {
                    let number = f64::from_be_bytes(self.take()?);
                    self.push(Node::Float(number))?;
                }
                b'U' | b'C' | 0x8c => {
                    let length = self.byte()?;
                    let range = self.range(length)?;
                    self.push(Node::Bytes(range))?;
                }
                b'T' | b'X' | b'B' => {
                    let length = self.word()?;
                    let range = self.range(length)?;
                    self.push(Node::Bytes(range))?;
                }
                0x8d | 0x8e => {
                    let length = self.long()?;
                    let range = self.range(length)?;
                    self.push(Node::Bytes(range))?;
                }
                b'V' => {
                    let range = self.line()?;
                    self.push(Node::Bytes(range))?;
                }
                b')' => self.push(Node::Tuple(Vec::new()))?,
                b't' => {
                    let members = self.above_mark()?;
                    self.push(Node::Tuple(members))?;
                }
                0x85..=0x87 => self.tuple(usize::from(opcode) - 0x84)?,
                b']' => self.push(Node::List(Vec::new()))?,
                b'l' => {
                    let members = self.above_mark()?;
                    self.push(Node::List(members))?;
                }
                b'a' => {
                    let member = self.pop()?;
                    self.append(vec![member])?;
                }
                b'e' => {
                    let members = self.above_mark()?;
                    self.append(members)?;
                }
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b'd' => {
                    let members = self.above_mark()?;
                    self.push(Node::Dict(Vec::new()))?;
                    self.set_items(members)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let members = self.above_mark()?;
                    self.set_items(members)?;
                }
                b'p' => {
                    let key = usize::try_from(self.number()?).unwrap_or(usize::MAX);
                    self.put(key)?;
                }
                b'q' => {
                    let key = self.byte()?;
                    self.put(key)?;
                }
                b'r' => {
                    let key = self.word()?;
                    self.put(key)?;
                }
                0x94 => self.put(self.memo.len())?,
                b'g' => {
                    let key = usize::try_from(self.number()?).unwrap_or(usize::MAX);
                    self.get(key)?;
                }
                b'h' => {
                    let key = self.byte()?;
                    self.get(key)?;
                }
                b'j' => {
                    let key = self.word()?;
                    self.get(key)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&self.nodes[module], &self.nodes[name]) {
                        (Node::Bytes(module), Node::Bytes(name)) => {
                            let (module, name) = (module.clone(), name.clone());
                            self.global(module, name)?;
                        }
                        _ => return self.malformed("a name is not a string"),
                    }
                }
                b'R' | 0x81 => self.call()?,
                b'b' => {
                    let built = self.pop()?;
                    let top = self.top()?;
                    match &mut self.nodes[top] {
                        Node::Call { state, .. } => *state = Some(built),
                        _ => return self.malformed("a state is set on a value that is not a call"),
                    }
                }
                b'Q' => {
                    let reference = self.pop()?;
                    self.push(Node::Persistent(reference))?;
                }
                _ => return Err(PickleError::Opcode { opcode, at }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
