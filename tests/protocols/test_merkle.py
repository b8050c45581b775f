import pytest
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import (
    EMPTY_ROOT,
    Frontier,
    hash_leaf,
    nodes_of,
    prove_all,
    prove_consistency,
    prove_inclusion,
    root_of,
    root_of_range,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves of the certificate-transparency reference tests, and the roots of their prefixes.
LEAVES = [
    hash_leaf(bytes.fromhex(text))
    for text in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {  # (index, size), from the same tests
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}


def test_known_roots():
    assert root_of_range(nodes_of([]), 0, 0) == EMPTY_ROOT
    assert [root_of_range(nodes_of(LEAVES), 0, size + 1).hex() for size in range(8)] == ROOTS
    assert root_of([]) == EMPTY_ROOT == Frontier().root
    assert [root_of(LEAVES[: size + 1]).hex() for size in range(8)] == ROOTS


@pytest.mark.parametrize(("place", "path"), PATHS.items())
def test_known_paths(place, path):
    index, size = place
    assert [step.hex() for step in prove_inclusion(nodes_of(LEAVES), index, size)] == path


def test_frontier_equals_the_whole_tree_at_every_size():
    leaves = [hash_leaf(bytes([number])) for number in range(130)]
    frontier = Frontier()
    for size, leaf in enumerate(leaves, 1):
        frontier = frontier.append(leaf)
        assert frontier.root == root_of(leaves[:size])
        assert len(frontier.peaks) == size.bit_count()


def _holds(leaf, index, size, proof, root) -> bool:
    try:
        verify_inclusion(leaf, index=index, size=size, proof=proof, root=root)
    except VerificationError:
        return False
    return True


def test_a_proof_holds_for_its_own_place_only():
    leaves = [hash_leaf(bytes([number])) for number in range(20)]
    for size in range(1, 21):
        root = root_of(leaves[:size])
        for index in range(size):
            leaf, proof = leaves[index], prove_inclusion(nodes_of(leaves), index, size)
            assert _holds(leaf, index, size, proof, root)
            assert not any(_holds(leaf, i, size, proof, root) for i in range(-1, 22) if i != index)
            # Another size can share the path's shape (RFC 9162 leaves the size to the signed root);
            # what must never hold is a size that does not contain the leaf.
            assert not any(_holds(leaf, index, s, proof, root) for s in range(index + 1))
            assert not _holds(leaves[index - 1], index, size, proof, root) or size == 1
            assert not _holds(leaf, index, size, [*proof, leaf], root)
            assert not _holds(leaf, index, size, [leaf, *proof], root)
            assert not _holds(leaf, index, size, proof, root_of([*leaves[:size], leaf]))
            for at in range(len(proof)):
                assert not _holds(leaf, index, size, proof[:at] + proof[at + 1 :], root)
                flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
                assert not _holds(leaf, index, size, [*proof[:at], flipped, *proof[at + 1 :]], root)


def test_a_changed_size_that_changes_the_path_fails():
    for size, other in ((8, 4), (8, 9), (8, 16), (7, 8), (5, 6), (4, 5)):
        root, last = root_of(LEAVES[:size]), size - 1
        proof = prove_inclusion(nodes_of(LEAVES), last, size)
        assert not _holds(LEAVES[last], last, other, proof, root)


def test_a_node_cannot_pass_as_a_leaf():
    left, right = LEAVES[:2]
    assert hash_leaf(left + right) != root_of([left, right])


def test_checkpoint_text():
    checkpoint = Checkpoint(origin="glass/log", size=8, root=bytes.fromhex(ROOTS[-1]))
    assert checkpoint.text() == "glass/log\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n"
    assert Checkpoint.empty("x").text().startswith("x\n0\n47DEQpj8HBSa")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 8, 13, 64])
def test_all_proofs_at_once_are_those_one_by_one(size):
    leaves = [hash_leaf(bytes([index])) for index in range(size)]
    root, proofs = prove_all(leaves)
    assert root == root_of(leaves)
    assert proofs == [
        tuple(prove_inclusion(nodes_of(leaves), index, size)) for index in range(size)
    ]


CONSISTENCY = {  # (old, new), from the same tests
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


@pytest.mark.parametrize(("sizes", "path"), CONSISTENCY.items())
def test_known_consistency_proofs(sizes, path):
    old, new = sizes
    assert [step.hex() for step in prove_consistency(nodes_of(LEAVES), old, new)] == path


def check(old, new, proof, leaves, *, old_root=None, new_root=None):
    verify_consistency(
        old=old,
        old_root=old_root or root_of(leaves[:old]),
        new=new,
        new_root=new_root or root_of(leaves[:new]),
        proof=proof,
    )


def test_every_beginning_of_a_log_is_consistent_with_it_and_nothing_else_is():
    leaves = [hash_leaf(bytes([number])) for number in range(40)]
    other = [hash_leaf(bytes([number, 1])) for number in range(40)]
    for new in range(41):
        for old in range(new + 1):
            proof = prove_consistency(nodes_of(leaves), old, new)
            check(old, new, proof, leaves)
            if old == 0:
                continue
            with pytest.raises(VerificationError):
                check(old, new, proof, leaves, old_root=root_of(other[:old]))
            if old == new:
                continue
            with pytest.raises(VerificationError):
                check(old, new, proof, leaves, new_root=root_of([*leaves[: new - 1], other[0]]))
            with pytest.raises(VerificationError):
                check(old, new, proof[:-1], leaves)
            with pytest.raises(VerificationError):
                check(old, new, [*proof, proof[0] if proof else EMPTY_ROOT], leaves)


def test_a_log_that_shrank_or_has_no_such_past():
    leaves = [hash_leaf(bytes([number])) for number in range(5)]
    with pytest.raises(VerificationError, match="shrank from 5 entries to 3"):
        check(5, 3, [], leaves)
    with pytest.raises(VerificationError, match="missing"):
        check(3, 5, [], leaves)
    with pytest.raises(VerificationError, match="one size that differ"):
        check(3, 3, [], leaves, new_root=EMPTY_ROOT)
    with pytest.raises(VerificationError, match="one size that differ"):
        check(0, 3, [], leaves, old_root=leaves[0])
    for old, new in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="no tree of"):
            prove_consistency(nodes_of(leaves), old, new)
