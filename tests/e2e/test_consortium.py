"""Real processes: a server, agents, their ledgers; killed without warning and started again."""

import signal
import subprocess

import pytest
from consortium_of_processes import PLAN, World
from greylag_lab.processes import call_json, program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_killed_agent_costs_one_attempt(world: World) -> None:
    rounds = 200
    # A public reply offset paces the rounds, so that three 50th rounds leave twenty seconds to come
    # back in, however busy the machine is.
    world.set_pace(rounds=rounds, reply_offset_s=0.15)
    agents = {name: world.start_agent(name) for name in world.tables}
    world.start_training()
    world.wait_for_rounds(5)
    agents["supplier-02"].send_signal(signal.SIGKILL)
    agents["supplier-02"].wait()
    world.wait_for_rounds(15)
    world.start_agent("supplier-02")
    run = world.wait_for_end()
    assert (run["status"], run["rounds"]) == ("done", rounds)
    assert run["attempts"] == rounds + 1
    assert run["roster"] == sorted(world.tables)
    world.check_books()


def test_killed_coordinator_goes_on(world: World) -> None:
    world.start_agent(*world.tables)  # one host process for all firms
    world.start_training()
    for rounds in (3, 20, 40):
        world.wait_for_rounds(rounds)
        world.server.send_signal(signal.SIGKILL)
        world.server.wait()
        before = world.rounds_done()
        world.server = world.start_server()
        world.wait_for_rounds(before)
    run = world.wait_for_end()
    assert (run["status"], run["rounds"]) == ("done", 60)
    assert run["attempts"] == 60, "the attempt in flight was sent again, not replaced"
    world.check_books()
    release = ["release", str(run["run"]), "--dir", str(world.lead), "--format", "json"]
    call_json("greylag-server", [*release, "--out", str(world.root / "release")])
    out = world.root / "predicted.csv"
    predict = [str(world.root / "release"), str(world.tables["lead"]), "-o", str(out)]
    subprocess.run([program("greylag-client"), "predict", *predict], check=True)
    header = out.read_text().splitlines()[0]
    assert "tensile_modulus_mpa_predicted" in header
    assert "out_of_range" in header


def test_wrong_input_is_told_and_nothing_is_lost(world: World) -> None:
    def fails(command: list[str]) -> tuple[int, str]:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.stdout == ""
        return ended.returncode, " ".join(ended.stderr.split())

    server = [program("greylag-server")]
    client = [program("greylag-client")]
    # a directory that is served already, and a port in use
    code, said = fails([*server, "serve", "--dir", str(world.lead)])
    assert code == 2
    assert "another process serves" in said
    other, ports = str(world.root / "other"), ["--port", str(world.port), "--enrol-port", "0"]
    call_json("greylag-server", ["init", other, "--name", "other", *ports, "--format", "json"])
    code, said = fails([*server, "serve", "--dir", other])
    assert code == 2
    assert str(world.port) in said
    # fewer firms than the plan wants
    large = world.root / "large.toml"
    large.write_text(PLAN.replace("min_firms = 4", "min_firms = 6"))
    code, said = fails([*server, "train", str(large), "--dir", str(world.lead)])
    assert code == 2
    assert "5 firms are enrolled" in said
    # an unknown key
    typo = world.root / "typo.toml"
    typo.write_text(PLAN.replace("sampling_rate", "sampling_rat"))
    code, said = fails([*server, "train", str(typo), "--dir", str(world.lead)])
    assert code == 2
    assert "did you mean 'sampling_rate'" in said
    # an invite that was used
    text = world.invite("newcomer")
    where = ["--dir", str(world.firm("newcomer")), "--format", "json"]
    call_json("greylag-client", ["join", text, *where])
    again = ["--dir", str(world.root / "elsewhere"), "--format", "json"]
    code, said = fails([*client, "join", text, *again])
    assert code == 2
    assert "used" in said
    assert not (world.root / "elsewhere").exists()
    # a table that does not fit
    table = world.root / "bad.csv"
    table.write_text(
        world.tables["lead"].read_text().replace("\n", "\n", 1).replace(",", ",abc", 5)
    )
    code, said = fails([*client, "check", str(table), "--plan", str(world.plan)])
    assert code == 2
    assert "bad.csv" in said
