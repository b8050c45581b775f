"""Writes ``vectors/*.json`` from the slow reference: ``python gen_vectors.py [DIRECTORY]``.

A vector names an operation and its inputs, and one of

* ``out``: what the operation must give, bit by bit;
* ``low`` and ``high``: what it must lie between;
* ``refused``: why the operation must refuse these inputs (``_bad_`` in the name);
* ``not``: what a plausible mistake would give, and must not come out (``_bad_`` in the name);
* ``above``: a price that a mistake would give, and is too low (``_bad_`` in the name).

Bytes are hexadecimal, doubles are C99 hexadecimal strings, statements are their own text.
"""

import json
import sys
from pathlib import Path

from reference.cases_bytes import encoding, masking
from reference.cases_membership import membership
from reference.cases_statements import statements
from reference.cases_sums import accounting, quantisation, step
from reference.cases_terms import terms
from reference.vector_file import Vectors

MAKERS = (encoding, masking, quantisation, terms, accounting, step, membership, statements)


def main() -> None:
    root = Path(__file__).parent / "vectors" if len(sys.argv) < 2 else Path(sys.argv[1])
    for make in MAKERS:
        vectors = Vectors()
        make(vectors)
        content = json.dumps({"vectors": vectors.items}, indent=1) + "\n"
        (root / f"{make.__name__}.json").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
