"""`tl.auto`: a result first, then what fits into the time, which a clock of the tests measures."""

import html
import json
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import tl_toolkit as tl
from tests.browser import inspect_page
from tests.command import tltool
from tests.conftest import ROOT, draw_class_folders
from tests.pixels import draw_balls
from tl_toolkit.api.auto_bases import AutoBases
from tl_toolkit.api.auto_fitting import Fitting
from tl_toolkit.api.auto_record import AutoRecord, FinishedRun
from tl_toolkit.api.auto_runs import AutoRuns
from tl_toolkit.api.auto_work import AutoWork, Reading
from tl_toolkit.api.base_choices import BaseChoice
from tl_toolkit.api.rank_bases import RankedBase
from tl_toolkit.errors import DataError, OutputError, Problem, RecipeError
from tl_toolkit.events import Event, ignore
from tl_toolkit.plan.automatic import read_first
from tl_toolkit.printing.words import describe_seconds
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning.budget import Budget, Pace, TimeIsUp
from tl_toolkit.tuning.journal import Trial

MINUTES = 1000
CHANGES = [
    f"model.weights={ROOT / 'models' / 'digits_vgg_tiny.weights.h5'}",
    "data.image_size=32",
]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def draw_shapes(folder, count=24, seed=2):
    """Balls, boxes and cones of any colour on noise, which a head alone does not tell apart."""
    random = np.random.default_rng(seed)
    for kind in ("ball", "box", "cone"):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            noise = random.integers(0, 160, (32, 32, 3), dtype=np.uint8)
            image = Image.fromarray(noise)
            x, y = map(int, random.integers(2, 14, 2))
            side = int(random.integers(10, 16))
            color = tuple(map(int, random.integers(60, 255, 3)))
            box = (x, y, x + side, y + side)
            draw = ImageDraw.Draw(image)
            if kind == "ball":
                draw.ellipse(box, fill=color)
            elif kind == "box":
                draw.rectangle(box, fill=color)
            else:
                corners = [(x, y + side), (x + side, y + side), (x + side // 2, y)]
                draw.polygon(corners, fill=color)
            image.save(folder / kind / f"{number}.png")
    return folder


def start(photos, out, handle, clock, **options):
    return tl.auto(
        photos, minutes=MINUTES, bases=["vgg_tiny"], overrides=CHANGES, out=out, clock=clock,
        progress=handle, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """An `auto` that was interrupted after its first trial: images, its folder, its record."""
    folder = tmp_path_factory.mktemp("auto")
    photos, clock = draw_shapes(folder / "shapes"), Clock()
    kept = {}

    def handle(event):
        if event.kind in ("features_computed", "trial_ended"):
            kept.setdefault(event.kind, json.loads((folder / "out" / "auto.json").read_text()))
        if event.kind == "features_computed" and not clock.now:
            clock.now = 1000.0  # which the first run takes around its training
        if event.kind == "trial_ended":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(photos, folder / "out", handle, clock)
    record = AutoRecord.read(RunFolder(folder / "out"))
    status = RunFolder(folder / "out").read_status()
    return photos, folder / "out", record, status, kept


@pytest.fixture(scope="module")
def finished(stopped):
    """The same, resumed until the next trial no longer fits; and the events since."""
    photos, out, record, *_ = stopped
    clock, events = Clock(), []

    def handle(event):
        events.append(event)
        if event.kind == "trial_ended":
            clock.now = 60 * MINUTES - record.seconds - 1500

    return start(photos, out, handle, clock, resume=True), events


def test_an_interrupt_leaves_a_finished_run_with_its_report(stopped):
    _, out, record, status, _ = stopped

    assert (status["kind"], status["state"]) == ("auto", "interrupted")
    assert record.chosen == "models/head-vgg-tiny" and record.seconds == 1000
    head = tl.load_run(out / record.chosen)
    assert (head.path / "report" / "index.html").is_file()
    assert head.metrics["validation"]["accuracy"] == record.runs[0].score
    assert (out / "recipe.yaml").is_file()


def test_a_kill_at_any_time_leaves_what_was_asked_and_spent(stopped):
    _, _, record, _, kept = stopped

    before, after = kept["features_computed"], kept["trial_ended"]
    assert before["asked"] == record.asked and before["runs"] == []
    assert after["seconds"] == 1000 and len(after["runs"]) == 1


@pytest.mark.slow
def test_what_was_done_is_not_done_again(finished):
    found, events = finished

    assert not [event for event in events if event.kind == "features_computed"]
    texts = [event.text for event in events if event.kind == "message"]
    assert not [text for text in texts if text.startswith("run models/head")]
    assert [event.facts["number"] for event in events if event.kind == "trial_ended"] == [2]
    assert [trial["number"] for trial in found.record.trials] == [1, 2]


@pytest.mark.slow
def test_the_winner_becomes_a_run_if_it_fits_and_another_trial_would_not(finished):
    found, _ = finished
    head, tuned = found.record.runs
    best = max(found.record.trials, key=lambda trial: trial["score"])

    assert tuned.name == f"models/tuned-vgg-tiny-{best['number']}"
    assert tuned.objective == pytest.approx(best["score"]) and tuned.score > head.score
    assert tl.load_run(found.path / tuned.name).metrics["best"]["phase"] == "tune"


@pytest.mark.slow
def test_of_runs_that_are_not_to_be_told_apart_the_cheapest_is_chosen(finished):
    found, _ = finished
    head, tuned = found.record.runs

    assert (found.record.chosen, found.record.tied) == (head.name, [tuned.name])
    assert found.record.why["choice"] == (
        f"{head.name} is not to be told apart from {tuned.name}, and is the cheapest of them"
    )
    assert found.best.path == found.path / head.name


@pytest.mark.slow
def test_its_recipe_is_one_that_finetune_repeats(finished, tmp_path):
    found, _ = finished

    again = tl.finetune(found.recipe, root=tmp_path, overrides={"report": False})

    assert again.metrics["weights_sha256"] == found.best.metrics["weights_sha256"]
    assert found.recipe.read_text().startswith("# auto: trial ")


@pytest.mark.slow
def test_the_command_says_what_it_tried_and_why(stopped, finished, tmp_path):
    photos, out, *_ = stopped
    head, tuned = finished[0].record.runs
    words = ("auto", photos, *CHANGES, "--bases", "vgg_tiny", "--out", out)

    done = tltool(*words, "--resume", cwd=tmp_path)

    assert "features: " not in done.stderr and "run models/" not in done.stderr
    assert f"{head.name} *" in done.stdout and f"{tuned.name} " in done.stdout
    assert f"{head.name} is not to be told apart from {tuned.name}" in done.stdout
    assert "trial 1 unfreeze from" in " ".join(done.stdout.split())
    assert f"tltool finetune {out}/recipe.yaml" in done.stderr


@pytest.fixture(scope="module")
def page(finished):
    """The page of a finished `auto`, to which a ranking of three bases is added."""
    found, _ = finished
    values = json.loads(found.folder.auto.read_text())
    written = (found.folder.report / "index.html").read_text()
    bases = [base("best", 0.9, (0.85, 0.95), 300), base("vgg_tiny", 0.86, (0.8, 0.91), 200),
             base("worse", 0.7, (0.6, 0.8), 50)]  # fmt: skip
    more = {**values, "bases": [asdict(each) for each in bases], "skipped": {"large": "no <time>"}}
    found.folder.auto.write_text(json.dumps(more))
    text = tl.report(found).read_text()
    yield found, written, text
    found.folder.auto.write_text(json.dumps(values))


@pytest.mark.slow
def test_it_ends_with_a_page_of_what_it_tried_and_why(page):
    found, written, _ = page
    head, tuned = found.record.runs

    assert f"Chosen: {head.name}, accuracy {head.score:.3f}" in written
    assert f"is not to be told apart from {tuned.name}, and is the cheapest of them." in written
    headings = re.findall(r'<h2 id="(\w+)">', written)
    assert headings == ["runs", "time", "bases", "trials", "fields", "recipe"]
    assert "No bases were ranked." in written and "The trials, the best first: 2" in written
    assert html.escape(found.recipe.read_text(), quote=False)[:200] in written


@pytest.mark.slow
def test_the_page_leads_to_the_reports_of_the_finished_runs(page):
    found, written, _ = page

    links = re.findall(r'<a href="(\.\.[^"]*)">([^<]*)</a>', written)
    assert [text for _, text in links] == [
        "The report of models/head-vgg-tiny, which was chosen",
        f"The report of {found.record.runs[1].name}",
    ]
    for target, _ in links:
        assert (found.folder.report / target).is_file()


@pytest.mark.slow
def test_the_page_says_what_each_step_took_of_the_budget(page):
    found, written, _ = page
    steps = found.record.steps

    assert list(steps) == ["first run", "bases", "search", "run of the best trial"]
    assert steps["first run"] == pytest.approx(
        1000, abs=1
    )  # by the clock of the tests, before the interrupt
    shown = re.search(r'id="time-desc">([^<]*)<', written)[1]
    assert f"of {describe_seconds(60 * MINUTES)} were used" in shown
    bars = dict(re.findall(r'text-anchor="end">([^<]+)</text>\s*<rect[^>]*>\s*<text[^>]*>([^<]+)<',
                           written))  # fmt: skip
    assert bars["first run"] == "16 min 40 s, 2%"
    assert "start, and between steps" in bars


@pytest.mark.slow
def test_the_page_ranks_bases_and_names_those_that_were_left_out(page):
    _, _, text = page

    rows = re.findall(r'<tr><th scope="row">(best|vgg_tiny|worse)</th>(.*?)</tr>', text)
    judged = {name: re.findall(r"<td>([^<]*)</td>", cells)[0] for name, cells in rows}
    assert judged == {"best": "best", "vgg_tiny": "tied, taken", "worse": "worse"}
    assert "best 0.900 (0.850 to 0.950); vgg_tiny 0.860 (0.800 to 0.910)" in text
    assert "no &lt;time&gt;" in text


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_the_page_to_everybody(page, tmp_path, dark):
    """Needs a process of its own: Chromium."""
    found, *_ = page
    seen, console = inspect_page(found.folder.report / "index.html", tmp_path, dark=dark)

    assert console == []
    assert set(seen) == {"desktop", "phone"}
    for shown in seen.values():
        assert shown["violations"] == [] and shown["passes"] > 20
        assert shown["resources"] == [] and shown["wider_by"] <= 0


@pytest.mark.slow
def test_the_command_writes_the_page_of_what_was_interrupted(stopped, finished, tmp_path):
    _, _, record, *_ = stopped
    copy = shutil.copytree(finished[0].path, tmp_path / "copy")
    record.write(RunFolder(copy))  # as it was after the interrupt: one run, and no trial yet
    (copy / "report" / "index.html").unlink()

    done = tltool("report", copy, "--json", cwd=tmp_path)

    page = json.loads(done.stdout)["report"]
    assert page == str(copy / "report" / "index.html")
    assert "No search was begun." in (copy / "report" / "index.html").read_text()


def test_before_the_first_run_there_is_no_page(work, tmp_path):
    work.record.asked = {"data": "photos"}
    work.record.write(work.folder)
    work.folder.write_status("interrupted", kind="auto")

    refused = tltool("report", tmp_path, cwd=tmp_path, code=2).stderr

    assert "has no finished run yet" in refused
    assert f"tltool auto photos --resume --out {tmp_path}" in " ".join(refused.split())


class Ticking(Clock):
    """Each look at it takes a second."""

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.slow
def test_time_that_runs_out_while_images_are_read_is_told_with_the_minutes_it_takes(tmp_path):
    photos = draw_class_folders(tmp_path / "photos", count=12)
    words = {"bases": ["vgg_tiny"], "overrides": CHANGES, "out": tmp_path / "out"}

    with pytest.raises(RecipeError) as caught:
        tl.auto(photos, minutes=0.5, clock=Ticking(), **words)

    (problem,) = caught.value.problems
    told = re.search(r"(\d+) of 36 images were inspected", problem.what)
    assert problem.where == "--minutes 0.5" and 0 < int(told[1]) < 36
    assert int(re.match(r"--minutes (\d+) --resume", problem.hint)[1]) >= 1
    record = AutoRecord.read(RunFolder(tmp_path / "out"))
    assert 33 <= record.seconds <= 33 + 12  # a tenth more, and the looks that tell it
    assert RunFolder(tmp_path / "out").read_status()["state"] == "failed"
    assert not list((tmp_path / "out" / "models").glob("*"))

    def stop(event):
        if event.kind == "features_computed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # it goes on, as there is more time
        tl.auto(photos, minutes=MINUTES, clock=Clock(), resume=True, progress=stop, **words)
    assert AutoRecord.read(RunFolder(tmp_path / "out")).seconds == record.seconds


def test_no_training_of_the_first_run_is_ended_by_its_time(work):
    runs = AutoRuns(work)
    work.budget.clock.now = 70.0  # of 60

    features = Event("features_computed", done=4, total=24)
    choice = BaseChoice("vgg_tiny", "vgg_tiny", {}, "random")

    runs.train_head = lambda choice: work.handle(features)
    with pytest.raises(RecipeError, match="4 of 24 images had gone through the frozen part"):
        runs.train_first(choice)
    work.budget.clock.now = 65.0  # less than a tenth more
    runs.train_first(choice)

    def train(choice):
        work.budget.clock.now = 70.0
        for kind in ("step_ended", "epoch_ended"):
            work.handle(Event(kind))
        work.handle(features)  # of the next phase

    runs.train_head = train
    runs.train_first(choice)


def test_the_rest_of_reading_is_foreseen_by_what_is_done():
    clock = Clock()
    reading = Reading(clock)

    assert (reading.left, reading.describe()) == (0.0, "no image was inspected")
    for done in (1, 2, 3):
        reading.note(Event("images_inspected", done=done, total=103))
        clock.now += 2.0
    assert reading.left == 300.0  # two were inspected in 6 s
    reading.note(Event("step_ended"))
    reading.note(Event("targets_inspected", done=5, total=10))
    assert reading.left == 0.0
    assert reading.describe() == "5 of 10 maps of targets were inspected"


def test_features_that_were_not_stored_are_foreseen_again():
    clock = Clock()
    reading = Reading(clock)

    for done in (32, 64, 96):
        reading.note(Event("features_computed", done=done, total=128))
        clock.now += 32.0
    clock.now -= 32.0

    assert reading.left == 128.0  # a second each; none of the 96 is kept


@pytest.mark.slow
def test_a_folder_in_use_is_refused_and_so_is_another_question(stopped, finished, tmp_path):
    photos, out, *_ = stopped
    words = ("auto", photos, *CHANGES, "--bases", "vgg_tiny", "--out", out)

    refused = tltool(*words, cwd=tmp_path, code=2).stderr
    other = tltool(*words, "--resume", "--seed", "1", cwd=tmp_path, code=2).stderr
    model = tltool("evaluate", out, cwd=tmp_path, code=2).stderr

    assert "--resume to resume it" in refused
    assert "was begun with another seed" in other
    assert "tltool evaluate" in model and "models/head-vgg-tiny" in model


def test_a_trial_that_would_leave_no_time_for_its_run_is_stopped():
    clock = Clock()
    pace = Pace(clock)
    pace.around = 10.0
    budget = Budget(100, clock)
    fitting = Fitting(budget, pace, budget.check, operations=1, images=(10, 5))
    step = Event("step_ended")

    assert fitting.choose_epochs() == 8 and fitting.fits([])
    clock.now = 30.0
    fitting.watch(step)  # its run would take 1.25 x (10 + 30), the end of the search 2.5
    clock.now = 39.0  # 61 are left, 63.75 needed
    with pytest.raises(TimeIsUp):
        fitting.watch(step)


def trial(number, score, seconds):
    return Trial(number, {}, "completed", score, None, None, seconds, 0.0)


def test_another_trial_fits_if_it_and_the_run_of_the_best_one_do():
    clock = Clock()
    pace = Pace(clock)
    pace.around = 10.0
    budget = Budget(100, clock)
    fitting = Fitting(budget, pace, budget.check, operations=1, images=(10, 5))
    done = [trial(1, 0.7, 30.0), trial(2, 0.8, 20.0), trial(3, 0.6, 16.0)]

    clock.now = 28.0  # 25 for the trial, 2.5 for the end, 1.25 x (10 + 25) for its run: 71.25
    assert fitting.fits(done)
    clock.now = 29.0
    assert not fitting.fits(done)
    failed = replace(trial(3, None, 99.0), state="failed")
    clock.now = 28.0
    assert fitting.fits([*done[:2], failed])


def test_where_not_one_trial_fits_the_reason_has_its_seconds():
    clock = Clock()
    pace = Pace(clock)
    pace.around = 40.0
    budget = Budget(100, clock)
    fitting = Fitting(budget, pace, budget.check, operations=1, images=(10, 5))

    assert fitting.choose_epochs() is None
    # 20 for a trial, 10 for the end, 1.25 x (40 + 20) for its run
    assert fitting.refusal == (
        "no search fits: a trial and its run take about 105 s, and 100 s are left"
    )


@pytest.fixture
def work(tmp_path):
    photos = draw_class_folders(tmp_path / "photos", count=4)
    first, _ = read_first(photos, task="", base="vgg_tiny", seed=0, overrides=CHANGES)
    record = AutoRecord({}, 1.0)
    return AutoWork(first, RunFolder(tmp_path), record, Budget(60, Clock()), ignore)


def base(name, probe, interval, operations):
    return RankedBase(name, name, {}, 10, operations, True, probe, interval)


def test_the_base_that_is_tuned_is_the_cheapest_of_those_that_equal_the_best(work):
    plans = {name: (name, None) for name in ("best", "near", "worse", "small")}
    work.record.bases = [
        base("best", 0.9, (0.85, 0.95), 300),
        base("near", 0.86, (0.8, 0.91), 200),
        base("worse", 0.7, (0.6, 0.8), 50),
    ]

    assert AutoBases(work).choose(plans, "small") == "near"
    assert work.record.why["base"] == (
        "base near is not to be told apart from best, and takes the fewest operations"
    )
    work.record.bases = work.record.bases[::2]
    assert AutoBases(work).choose(plans, "small") == "best"
    work.record.bases = []
    assert AutoBases(work).choose(plans, "small") == "small"  # none was judged


def plan(work, bases, limits=(None, None)):
    return AutoBases(work, bases=bases, limits=limits).plan()


def test_a_base_above_a_limit_is_not_used_though_it_is_the_only_one(work):
    assert list(plan(work, ["vgg_tiny"], (7e6, 1e6))) == ["vgg_tiny"]
    with pytest.raises(RecipeError, match=r"takes 6,119,424 operations, more than was asked for"):
        plan(work, ["vgg_tiny"], (1, None))
    with pytest.raises(RecipeError, match="has more weights than was asked for"):
        plan(work, ["vgg_tiny"], (None, 1000))


def test_a_step_that_fails_leaves_the_steps_after_it(work):
    def refuse():
        raise OutputError(Problem("runs", "the disk is full"))

    def exhaust():
        raise MemoryError

    work.attempt("ranking", refuse)
    work.attempt("search", exhaust)

    assert work.record.why["ranking"].startswith("the ranking failed: runs")
    assert work.record.why["search"] == "the search failed: memory ran out"
    with pytest.raises(ZeroDivisionError):  # a mistake of the toolkit is told
        work.attempt("search", lambda: 1 / 0)


@pytest.mark.slow
def test_bases_of_a_task_with_maps_are_ranked_too(tmp_path, monkeypatch):
    balls = draw_balls(tmp_path / "balls", train=4, validation=2) / "segmentation"
    changes = ["data.classes=[ground, ball]", "data.image_size=32", "model.weights=random"]
    first, _ = read_first(balls, task="", base="vgg_tiny", seed=0, overrides=changes)
    folder = RunFolder(tmp_path)
    work = AutoWork(first, folder, AutoRecord({}, 1.0), Budget(60, Clock()), ignore)
    bases = AutoBases(work, bases=["lenet5", "vgg_tiny"])

    plans = bases.plan()
    monkeypatch.setattr("tl_toolkit.api.auto_bases._LEAST", 1)
    bases.rank(plans)
    chosen = bases.choose(plans, "vgg_tiny")

    (base,) = work.record.bases
    assert base.name == chosen.name == "vgg_tiny" and 0 < base.probe <= 1
    assert base.images == 6 and "whole cells" in work.record.skipped["lenet5"]
    assert work.record.why["base"] == "base vgg_tiny has the best probe"


def test_a_better_run_is_chosen_though_it_costs_more(work, monkeypatch):
    cheap = FinishedRun("models/head", "a", "", 0.7, None, 100, 300, 10, 0, 5.0, 0.7)
    tuned = replace(cheap, name="models/tuned", score=0.9, trained=500)
    work.record.runs = [cheap, tuned]
    for run in work.record.runs:
        path = work.folder.path / run.name
        path.mkdir(parents=True)
        (path / "recipe.yaml").write_text("name: shapes\n")
    monkeypatch.setattr(AutoRuns, "_equals", lambda runs, best, other: False)

    AutoRuns(work).choose()

    assert (work.record.chosen, work.record.tied) == ("models/tuned", [])
    assert work.folder.recipe.read_text() == (
        "# auto: models/tuned has the best score\nname: shapes\n"
    )


def test_what_cannot_be_done_is_refused_before_any_work(tmp_path):
    photos = draw_class_folders(tmp_path / "photos", count=4)

    with pytest.raises(RecipeError, match="got 0\n  expected more than 0"):
        tl.auto(photos, minutes=0)
    with pytest.raises(DataError, match="is no folder and no table"):
        tl.auto(tmp_path / "none")
    with pytest.raises(RecipeError, match=r"holds no auto"):
        tl.auto(photos, out=tmp_path / "out", resume=True)
    with pytest.raises(RecipeError, match="no base can be used"):
        tl.auto(photos, bases=["mobilenet:alpha=0.25"], root=tmp_path, most_parameters=1000)
    assert not (tmp_path / "photos-auto").exists()


@pytest.mark.slow
@pytest.mark.assets
def test_what_a_minute_allows_on_real_images(assets, tmp_path, monkeypatch):
    name = "mobilenet_2_5_224_tf_no_top.h5"
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / name).symlink_to(assets / "weights" / name)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    made = tl.auto(
        assets / "images" / "hymenoptera", minutes=1, bases=["mobilenet:alpha=0.25"],
        root=tmp_path / "runs",
    )  # fmt: skip

    record = made.record
    steps = [*(run.seconds for run in record.runs), *(row["seconds"] for row in record.trials)]
    assert record.minutes == 1 and sum(steps) < record.seconds
    # A tenth more at most. A busy machine has fewer steps and not longer ones: each is foreseen by
    # what it took for those before, and the first run alone, which is always trained, may exceed.
    assert record.seconds <= 1.1 * max(60, record.runs[0].seconds)
    assert record.runs[0].score > 0.8 and "search" in record.why
    assert (made.best.path / "report" / "index.html").is_file()
