"""Names that do not exist are refused before images are decoded."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from denature import api
from denature.core.errors import DenatureError
from denature.data import loading
from denature.train import CheckpointConfig, Run, make, normal
from denature.train.objectives import Normal
from denature.train.order import Order
from tests.lines import fails

NET = "There is no network 'mlpp'. Did you mean mlp?"
TRACKER = "There is no tracker 'mlfloww'. Did you mean mlflow?"
MISSING = "The run missing is missing"
LIBRARY = "There is no network of timm 'resnt'. Did you mean resnet18?"


@pytest.fixture(autouse=True)
def undecoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data set can be read, and a library has one network."""

    def opened(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("data were decoded first")

    monkeypatch.setattr(loading, "_opened", opened)
    monkeypatch.chdir(tmp_path)
    library = type(sys)("timm")
    library.is_model = "resnet18".__eq__  # type: ignore[attr-defined]
    library.list_models = lambda: ["resnet18"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", library)
    Path("model.pt").touch()


def with_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = type(sys)("accelerate.tracking")
    tracking.LOGGER_TYPE_TO_CLASS = {"mlflow": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "accelerate", type(sys)("accelerate"))
    monkeypatch.setitem(sys.modules, "accelerate.tracking", tracking)


TRAINING = ("train", "distill --teacher RUN", "nasty --adversary RUN", "skeptical --teacher RUN",
            "dafl --teacher RUN", "harden")  # fmt: skip
ON_DATA = "--data digits"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *((f"{command} --net mlpp {ON_DATA}", NET) for command in TRAINING),
        *((f"{command} --net mlp {ON_DATA} --track mlfloww", TRACKER) for command in TRAINING),
        *(
            (f"{command} --net timm:resnt {ON_DATA} --backbone timm:resnt", LIBRARY)
            for command in TRAINING[:-1]
        ),
        (f"train mlp {ON_DATA} --backbone timm:resnt", LIBRARY),
        (f"train mlp@width=2 {ON_DATA}", "There is no option of mlp 'width'"),
        (f"train mlp {ON_DATA} --init missing", MISSING),
        (f"train mlp {ON_DATA} --backbone missing", MISSING),
        (f"distill mlp {ON_DATA} --teacher missing", MISSING),
        (f"harden mlp {ON_DATA} --student mlpp", NET),
        (f"eval missing {ON_DATA}", MISSING),
        (f"eval timm:resnt {ON_DATA}", LIBRARY),
        (f"eval model.pt {ON_DATA} --net mlpp", NET),
        (f"eval gone.pt {ON_DATA} --net mlp", "There is no weights file gone.pt"),
        (f"eval model.pt {ON_DATA}", "model.pt holds weights without their network"),
        (f"eval gone.onnx {ON_DATA}", "gone.onnx"),
        (f"audit missing {ON_DATA}", MISSING),
        (f"audit model.pt {ON_DATA} --net mlpp", NET),
        (f"audit model.pt {ON_DATA} --net mlp --student mlpp", NET),
        (f"audit RUN {ON_DATA} --student mlpp", NET),
        (f"audit RUN {ON_DATA} --backbone timm:resnt", LIBRARY),
        (f"audit model.pt {ON_DATA} --net mlp --encoder missing", MISSING),
        (f"audit model.pt {ON_DATA} --net mlp --track mlfloww", TRACKER),
        (f"audit RUN {ON_DATA} --thief naiv", "There is no thief 'naiv'. Did you mean naive?"),
        ("steal missing --pool digits --budget 9 --student mlp", "The target 'missing' is no URL"),
        ("steal RUN --pool digits --budget 9 --student mlpp", NET),
        ("steal model.pt --pool digits --budget 9 --student mlpp --net mlp", NET),
        ("steal model.pt --pool digits --budget 9 --student mlp --net mlpp", NET),
        ("steal RUN --pool digits --budget 9 --student mlp --track mlfloww", TRACKER),
        ("steal RUN --pool digits --budget 9 --student mlp --backbone timm:resnt", LIBRARY),
        ("steal RUN --pool digits --budget 9 --student mlp --choose randm", "randm"),
        (f"robustness model.pt missing {ON_DATA} --net mlp", MISSING),
        (f"robustness RUN {ON_DATA} --undefended missing", MISSING),
        (f"robustness RUN {ON_DATA} --attacks pdg", "There is no attack 'pdg'. Did you mean pgd"),
        (f"robustness RUN {ON_DATA} --track mlfloww", TRACKER),
        (f"flatness missing {ON_DATA}", MISSING),
        (f"answers --fill missing {ON_DATA}", MISSING),
        ("reproduce nose --scale smoke --backbone timm:resnt", LIBRARY),
        ("reproduce tsne --scale smoke --track mlfloww", TRACKER),
        ("reproduce tsen --scale smoke", "Did you mean tsne?"),
    ],
)
def test_a_misspelt_name_is_refused_before_images_are_decoded(
    line: str,
    said: str,
    trained_mlp: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if said is TRACKER:
        with_tracker(monkeypatch)
    assert said in fails(capsys, *line.replace("RUN", str(trained_mlp.folder)).split())


NESTED = Order(net="mlp", objective=Normal(), init=Order(net="mlpp", objective=Normal()))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: normal("mlpp", "digits"), NET),
        (lambda run: normal("mlp", "digits", backbone="timm:resnt"), LIBRARY),
        (lambda run: make([NESTED], "digits"), NET),
        (lambda run: CheckpointConfig(track=("mlfloww",)), TRACKER),
        (lambda run: api.audit(run, "digits", student="mlpp"), NET),
        (lambda run: api.steal(run, "digits", student="mlpp", budget=9), NET),
        (lambda run: api.evaluate("missing", "digits"), MISSING),
        (lambda run: api.robustness(run, "digits", undefended=["missing"]), MISSING),
        (lambda run: api.flatness("missing", "digits"), MISSING),
    ],
)
def test_from_python_too(
    call: Callable[[Run], Any], said: str, trained_mlp: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tracker(monkeypatch)
    with pytest.raises(DenatureError) as found:
        call(trained_mlp)
    assert said in str(found.value)
