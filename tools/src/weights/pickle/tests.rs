use super::*;
use proptest::prelude::*;

#[test]
fn reads_containers_and_shares_what_is_memoized() {
    // pickle.dumps({"a": [1, (2, None)], "b": 1.5}, 2)
    let bytes = b"\x80\x02}q\0(X\x01\0\0\0aq\x01]q\x02(K\x01K\x02N\x86q\x03eX\x01\0\0\0bq\x04G?\xf8\0\0\0\0\0\0u.";
    let pickle = Pickle::read(bytes).expect("a pickle");
    let entries = pickle.entries(pickle.root()).expect("a dictionary");
    assert_eq!(pickle.text(entries[0].0), Some("a"));
    let list = pickle.members(entries[0].1).expect("a list");
    assert_eq!(pickle.node(list[0]), &Node::Int(1));
    assert_eq!(pickle.node(entries[1].1), &Node::Float(1.5));
    assert_eq!(pickle.length(), bytes.len());
}

#[test]
fn runs_nothing() {
    let bytes = b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.";
    let error = Pickle::read(bytes).err();
    assert_eq!(error, Some(PickleError::Forbidden { name: "posix.system".to_owned() }));
}

#[test]
fn a_list_that_holds_itself_is_read_and_dropped() {
    let pickle = Pickle::read(b"]q\0h\0a.").expect("a pickle");
    assert_eq!(pickle.members(pickle.root()), Some(&[0][..]));
}

#[test]
fn tuples_nested_a_million_deep_are_read_and_dropped() {
    let mut bytes = vec![b')'];
    bytes.extend(std::iter::repeat_n(0x85, 1_000_000));
    bytes.push(b'.');
    assert!(Pickle::read(&bytes).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::read(&bytes);
    }

    #[test]
    fn no_instructions_panic(
        picks in prop::collection::vec((0usize..32, 0u8..4), 0..200),
    ) {
        // Each opcode has the operand bytes that it takes, so that the machine gets
        // far.
        let opcodes: [(&[u8], usize); 32] = [
            (b"(", 0), (b"0", 0), (b"1", 0), (b"2", 0), (b"N", 0), (b"\x88", 0), (b")", 0),
            (b"t", 0), (b"\x85", 0), (b"\x86", 0), (b"\x87", 0), (b"]", 0), (b"l", 0),
            (b"a", 0), (b"e", 0), (b"}", 0), (b"d", 0), (b"s", 0), (b"u", 0), (b"R", 0),
            (b"b", 0), (b"\x81", 0), (b"Q", 0), (b"q", 1), (b"h", 1), (b"K", 1), (b"M", 2),
            (b"J", 4), (b"ccollections\nOrderedDict\n", 0), (b"ctorch\nSize\n", 0),
            (b"U\x02ab", 0), (b".", 0),
        ];
        let mut bytes = Vec::new();
        for (pick, operand) in &picks {
            let (opcode, operands) = opcodes[*pick];
            bytes.extend(opcode);
            bytes.extend(std::iter::repeat_n(*operand, operands));
        }
        let _ = Pickle::read(&bytes);
    }
}
