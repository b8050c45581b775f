"""Our log in the eyes of an implementation that we did not write (aics-tlog, Python 3.12 or newer).

It runs in an environment of its own, so that its needs are not ours, and reads a log that was
written to a directory: tiles, entries, signed and cosigned checkpoint; and our proofs.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.merkle import (
    hash_leaf,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    root_of,
)
from greylag_protocols.notes import cosign, cosigner_name, sign_checkpoint, with_cosignatures
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.tiles import encode_entries, entries_path, hash_tiles, widths

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ORACLE = "aics-tlog==0.2.1"
PYTHONS = ("python3.14", "python3.13", "python3.12")
SIZE, OLD, INDEX = 600, 300, 417

SCRIPT = """
import json, sys
from pathlib import Path
import aics_tlog as tlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as Key
root = Path(sys.argv[1])
facts = json.loads((root / "facts.json").read_text())
raw = bytes.fromhex
reader = tlog.FileSystemTileReader(root)
origin, size = facts["origin"], facts["size"]
lead = tlog.vkey_from_ed25519(origin, Key.from_public_bytes(raw(facts["lead"])))
firms = [tlog.cosignature_vkey(name, raw(key)) for name, key in facts["firms"].items()]
note = tlog.parse_note((root / "checkpoint").read_text())
seen = tlog.verify_checkpoint(note, lead, firms, len(firms), expected_origin=origin)
assert seen.ok and seen.cosignature_count == len(firms), seen
assert not tlog.verify_checkpoint(note, lead, firms, len(firms) + 1, expected_origin=origin).ok
assert not tlog.verify_checkpoint(note, firms[0], firms, 1, expected_origin=origin).ok
checkpoint = tlog.parse_checkpoint(note.text)
assert (checkpoint.size, checkpoint.root.hex()) == (size, facts["root"])
assert tlog.tree_root_from_tiles(reader, size) == checkpoint.root
entry = tlog.read_entry(reader, facts["index"], size)
assert entry == b"entry %d" % facts["index"]
inclusion = [raw(step) for step in facts["inclusion"]]
assert inclusion == tlog.inclusion_proof_from_tiles(reader, facts["index"], size)
leaf = tlog.leaf_hash(entry)
assert tlog.verify_inclusion(leaf, facts["index"], size, inclusion, checkpoint.root)
consistency = [raw(step) for step in facts["consistency"]]
assert consistency == tlog.consistency_proof_from_tiles(reader, facts["old"], size)
print("agrees")
"""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the other implementation."""
    home = tmp_path_factory.mktemp("oracle") / "venv"
    for name in filter(shutil.which, PYTHONS):
        made = subprocess.run([name, "-m", "venv", str(home)], capture_output=True, check=False)
        if made.returncode == 0:
            break
    else:
        pytest.skip(f"needs one of {', '.join(PYTHONS)}, for the outside implementation of the log")
    python = home / "bin" / "python"
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", ORACLE], capture_output=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"{ORACLE} cannot be installed here")
    return python


def test_another_implementation_reads_our_log(oracle: Path, tmp_path: Path) -> None:
    origin = "plastics-01"
    entries = [b"entry %d" % number for number in range(SIZE)]
    leaves = [hash_leaf(entry) for entry in entries]
    node = nodes_of(leaves)
    files = dict(hash_tiles(node, SIZE))
    for index, width in widths(SIZE):
        files[entries_path(index, width)] = encode_entries(entries[index * 256 :][:width])
    lead = Ed25519Signer(bytes([1]) * 32)
    firms = {cosigner_name(origin, f"firm-{at}"): Ed25519Signer(bytes([at]) * 32) for at in (2, 3)}
    checkpoint = Checkpoint(origin=origin, size=SIZE, root=root_of(leaves))
    words = [
        (name, firm.public_key, cosign(firm, checkpoint, time_s=1_790_000_000))
        for name, firm in firms.items()
    ]
    files["checkpoint"] = with_cosignatures(sign_checkpoint(lead, checkpoint), words).encode()
    facts = {
        **{"origin": origin, "size": SIZE, "old": OLD, "index": INDEX},
        "root": checkpoint.root.hex(),
        "lead": lead.public_key.hex(),
        "firms": {name: firm.public_key.hex() for name, firm in firms.items()},
        "inclusion": [step.hex() for step in prove_inclusion(node, INDEX, SIZE)],
        "consistency": [step.hex() for step in prove_consistency(node, OLD, SIZE)],
    }
    files["facts.json"] = json.dumps(facts).encode()
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    done = subprocess.run(
        [str(oracle), "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("agrees", 0), done.stderr
