"""The coordinator, run through its ServerApp on a LocalGrid with real firms."""
from pathlib import Path
import time
import numpy as np
from consortium_in_memory import Consortium, make_terms, run_on


def test_all(tmp_path: Path) -> None:
    t=time.time()
    c = Consortium(tmp_path, terms=make_terms())
    print(time.time()-t, c.terms.privacy.epsilon, c.terms.dimension, c.terms.batch_cap)
    store = c.open_store()
    sums = []
    co = c.coordinator(store, watch_sum=sums.append)
    run_on(c.local_grid(), co)
    print(time.time()-t)
    assert co.status == "done" and co.rounds_done == 4
