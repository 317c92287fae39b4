"""The networks of several seeds tested together, by --ensemble."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mnist_zoo import load
from mnist_zoo.commands.sweep import command as sweep
from mnist_zoo.commands.sweep import ensemble
from mnist_zoo.commands.sweep import run as sweep_run
from mnist_zoo.data import Digits
from mnist_zoo.errors import ZooError
from mnist_zoo.report import results_table, run_records


def test_an_ensemble_is_of_seeds_in_their_order_each_used_once(plan):
    runs = plan(["--model.lr=1,2"], seeds=[5, 0, 3, 4, 9])
    groups = ensemble.groups(runs, 2)
    assert [[run.seed for run in members] for members in groups] == [[5, 0], [3, 4]] * 2
    assert [members[0].flags for members in groups] == [("--model.lr=1",)] * 2 + [
        ("--model.lr=2",)
    ] * 2
    together = ensemble.run_of(groups[0])
    assert together.settings == ("--ensemble=2", "--model.lr=1")
    assert together.seed == 5


def test_networks_tested_together_answer_by_their_mean_probabilities(tmp_path, plan):
    flags = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.num_train=300"]
    members = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0, 1, 2])
    records = []
    for run in members:
        (tmp_path / run.folder).mkdir()
        records.append(run.record(sweep_run.train_and_test(run, tmp_path / run.folder)))
    records[1] |= {"date": "2999-12-31", "versions": {"torch": "9.9"}}
    record = ensemble.test(members, records, tmp_path)
    assert record["versions"] == {"torch": "9.9"}, "those of the newest run"

    networks = [load(next((tmp_path / run.folder).rglob("best.ckpt"))) for run in members]
    data = Digits(num_train=300)
    data.setup("test")
    images, targets = data.splits["test"]
    mean = torch.stack([network.predict(images) for network in networks]).mean(dim=0)
    assert record["test_acc"] == pytest.approx(float((mean.argmax(1) == targets).double().mean()))
    assert record["test_loss"] == pytest.approx(float(F.nll_loss(mean.log(), targets)), rel=1e-4)
    assert record["seeds"] == [0, 1, 2]
    assert record["num_steps"] == sum(one["num_steps"] for one in records)
    assert record["seconds"] == pytest.approx(sum(one["seconds"] for one in records))
    assert "--ensemble=3" in record["flags"]

    run_records.append(tmp_path / "results", record)
    assert run_records.read(tmp_path / "results") == [record]


class Reader:
    """Answers the same to all images; keeps what device it was put on."""

    def __init__(self, answer):
        self.answer = answer

    def to(self, device):
        self.device = device
        return self

    def predict(self, images):
        return self.answer


@pytest.fixture
def alone(tmp_path, monkeypatch, plan):
    """Test an ensemble of one network, on one image, a three; return its record."""
    data = SimpleNamespace(splits={"test": (torch.zeros(1, 28, 28), torch.tensor([3]))})
    checkpoint = SimpleNamespace(
        data={"class_path": "mnist_zoo.data.Digits"}, model={"class_path": "x"}
    )
    monkeypatch.setattr(ensemble, "data_with_test_images", lambda *_: data)
    monkeypatch.setattr(ensemble, "last_checkpoint", lambda folder: folder / "last.ckpt")
    monkeypatch.setattr("mnist_zoo.models.checkpoint.read", lambda path: checkpoint)

    def test(network, **recorded):
        monkeypatch.setattr("mnist_zoo.models.checkpoint.build", lambda *_, **__: network)
        record = {"num_steps": 1, "seconds": 1.0, "date": "", "weights": "last", **recorded}
        return ensemble.test(plan(seeds=[0]), [record], tmp_path)

    return test


def test_a_probability_of_zero_is_a_large_loss_and_no_infinite_one(alone):
    right, wrong = torch.eye(10)[[3]], torch.eye(10)[[4]]
    for answer, loss in ((right, 0.0), (wrong, 87.3365)):
        assert alone(Reader(answer))["test_loss"] == pytest.approx(loss)


@pytest.mark.parametrize(
    ("was_on", "is_there", "device"),
    [("cuda", True, "cuda"), ("cuda", False, "cpu"), ("cpu", True, "cpu")],
)
def test_an_ensemble_is_read_on_a_gpu_if_its_members_were_trained_there(
    was_on, is_there, device, monkeypatch, alone
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    network = Reader(torch.eye(10)[[3]])
    alone(network, device=was_on)
    assert network.device == device


def test_an_ensemble_is_of_the_weights_that_validation_chose(tmp_path, monkeypatch, plan):
    read = []

    def stop(path):
        read.append(path)
        raise ZooError("enough")

    monkeypatch.setattr("mnist_zoo.models.checkpoint.read", stop)
    (run,) = plan(seeds=[0])
    folder = tmp_path / run.folder / "Dense" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("last", "best"):
        (folder / f"{name}.ckpt").touch()
        with pytest.raises(ZooError, match="enough"):
            ensemble.test([run], [], tmp_path)
        assert read[-1].stem == name


def test_an_ensemble_finds_the_data_where_its_members_did(tmp_path, monkeypatch, plan):
    def data_with_test_images(checkpoint, named, root=None):
        raise ZooError(f"no {named} in {root}")

    monkeypatch.setattr(ensemble, "data_with_test_images", data_with_test_images)
    trained_on = SimpleNamespace(data={"class_path": "mnist_zoo.data.MNIST"})
    monkeypatch.setattr("mnist_zoo.models.checkpoint.read", lambda path: trained_on)
    monkeypatch.setattr(ensemble, "last_checkpoint", lambda folder: folder / "last.ckpt")
    with pytest.raises(ZooError, match=r"no mnist_zoo\.data\.MNIST in here"):
        ensemble.test(plan(["--data.root=here"]), [], tmp_path)


def test_an_ensemble_needs_the_weights_of_its_members(tmp_path, plan):
    with pytest.raises(ZooError, match="the weights of Dense, seed 0 are not in"):
        ensemble.test(plan(), [], tmp_path)


def test_an_ensemble_is_tested_once_and_of_finished_runs_alone(
    tmp_path, monkeypatch, capsys, plan, recorded
):
    runs = plan(seeds=[10, 11, 12, 13])  # the last of which crashes
    one = sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs")
    one.run(recorded(), 1)
    tested = []

    def test(members, records, folder):
        tested.append([run.seed for run in members])
        assert [record["seed"] for record in records] == tested[-1]
        outcome = {"status": "finished", "test_acc": 0.75, "seconds": 2.0, "seeds": tested[-1]}
        return ensemble.run_of(members).record(outcome)

    monkeypatch.setattr(ensemble, "test", test)
    for _ in range(2):
        one.test_ensembles(2)
    assert tested == [[10, 11]]
    assert "--ensemble=2, seed 12: left out, since not all" in capsys.readouterr().out
    (row,) = [r for r in results_table.rows(one.records()) if r.flags]
    assert (row.recipe, row.flags) == ("Dense", ("--ensemble=2",))
    # Of the same first seed, but with another second one: another ensemble, and no other again.
    for seeds in ([10, 12], [10, 11], [12, 10]):
        other = sweep._Sweep(plan(seeds=seeds), tmp_path / "results", tmp_path / "runs")
        other.test_ensembles(2)
    assert tested[1:] == [[10, 12]]
    records = run_records.read(tmp_path / "results")
    assert [r["seeds"] for r in records if r["flags"]] == [[10, 11], [10, 12]]


def test_an_ensemble_of_which_a_run_has_no_record_is_left_out(tmp_path, monkeypatch, capsys, plan):
    runs = plan(seeds=[0, 1])
    record = runs[0].record({"status": "finished", "test_acc": 0.5, "seconds": 1.0})
    run_records.append(tmp_path / "results", record)
    monkeypatch.setattr(ensemble, "test", lambda *_: pytest.fail("it was tested"))
    sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs").test_ensembles(2)
    assert "--ensemble=2, seed 0: left out, since not all" in capsys.readouterr().out
    assert run_records.read(tmp_path / "results") == [record]


def test_an_ensemble_without_its_weights_is_left_out_and_the_table_still_printed(
    tmp_path, capsys, plan, recorded
):
    one = sweep._Sweep(plan(seeds=[10, 11]), tmp_path / "results", tmp_path / "runs")
    one.run(recorded(), 1)
    one.test_ensembles(2)
    assert "seed 10: left out: the weights of Dense, seed 10 are not in" in capsys.readouterr().out


def test_an_ensemble_of_more_seeds_than_there_are_is_refused(cli):
    error = cli("sweep", "Dense", "--seeds", "3", "--ensemble", "5", status=2).err
    assert "--ensemble 5: more than the 3 --seeds" in error


def test_an_ensemble_of_one_is_refused(cli):
    assert (
        "--ensemble 1: must be at least 2."
        in cli("sweep", "Dense", "--ensemble", "1", status=2).err
    )
