"""What a gateway finds out before it serves: what cannot stand in front, and the answers' kind."""

import pytest

from denature.cli.app import main
from denature.serve.config import Exposure
from denature.serve.upstream import find_models
from denature.serve.upstream_config import UpstreamConfig
from tests.hostile import Answer, Request, hostile, reply
from tests.other_server import SHOWN, other, scores


def said_by(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words, "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_cannot_be_served_is_told_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be reached" in said_by(capsys, "--upstream", "http://127.0.0.1:9")
    assert "no URL of a server" in said_by(capsys, "--upstream", "localhost")
    with hostile(lambda _: reply(b"hello", kind="text/plain")) as behind:
        told = said_by(capsys, "--upstream", behind.url)
        assert "did not answer with JSON, but with text/plain, which begins 'hello'." in told
    with hostile(lambda _: reply({}, status="404 Not Found")) as behind:
        told = said_by(capsys, "--upstream", behind.url)
        assert "/index answered 404: " in told
        assert f"is named with one of them: {behind.url}/v2/models/NAME." in told
    with hostile(other(scores)) as behind:
        told = said_by(capsys, "m", "--upstream", behind.url, "--defense", "mad")
        assert "not before a model of another server" in told
    classes = SHOWN | {"datatype": "INT64", "shape": [-1]}
    with hostile(other(scores, outputs=[classes])) as behind:
        told = said_by(capsys, "m", "--upstream", behind.url, "--show", "probabilities")
        assert "gives label, but show=probabilities asks for probabilities" in told


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[0.25, 0.75], [1, 0]], "probabilities"),
        ([[0.25, 0.74], [1, 0.01]], "probabilities"),  # rounded by the server behind
        ([[0.25, 0.75], [1, 0.5]], "logits"),
        ([[-1, 2], [0, 1]], "logits"),
    ],
)
def test_the_kind_of_answers_is_found_by_asking(values: list[list[float]], kind: str) -> None:
    def answer(request: Request) -> Answer:
        flat = [value for row in values for value in row]
        return reply({"outputs": [SHOWN | {"shape": [2, 2], "data": flat}]})

    with hostile(other(answer)) as behind:
        [model] = find_models([], UpstreamConfig(upstream=behind.url), Exposure(), "none", key=None)
    assert model.upstream is not None
    assert (model.upstream.kind, model.upstream.scores) == (kind, 2)
    assert model.exposure.kind == kind
