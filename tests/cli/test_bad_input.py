"""Every bad input: one line on standard error that says what to do, exit code 2, no traceback."""

from pathlib import Path

import pytest

from prunus.cli import app as app_module
from tests.support.command_line import Cli, refused

Q = ("--prompt", "what is there?")


@pytest.mark.parametrize("keep", ["0", "-3", "0.0", "-0.5", "1.5", "nan", "inf", "true", "abc", ""])
def test_keep(cli: Cli, picture: Path, keep: str) -> None:
    refused(cli("run", picture, *Q, "--keep", keep), "give an int >= 1", "float in (0, 1]")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "clsee"], ["did you mean 'clse'", "`prunus methods`", "none"]),
        (["--method", "nothing-like-it"], ["`prunus methods` lists them all", "file.py:Class"]),
        (["--param", "cutof=1"], ["did you mean 'cutoff'", "temperature"]),
        (["--param", "cutoff"], ["name=value"]),
        (["--param", "cutoff=high"], ["cutoff='high'", "float"]),
        (["--param", "cutoff=nan"], ["cutoff=nan"]),
        (["--param", "cutoff=0.1", "--param", "cutoff=0.2"], ["twice"]),
        (["--param", "variant=newest"], ["paper | hybrid | released"]),
        (["--param", "trim_cache=maybe"], ["true | false"]),
        (["--param", "layers=1,x"], ["layers='x'", "int"]),
        (["--param", "keep=3", "--keep", "3"], ["twice"]),
        (["--param", "keep=true"], ["not a number"]),
        (["--method", "fixed", "--keep", "3"], ["its own count"]),
        (["--method", "none", "--keep", "3"], ["prunes nothing"]),
        (["--method", "evoprune+clsee"], ["did you mean 'clse'"]),
        (["--method", "evoprune+clse", "--keep", "64"], ["one for each", "0.5,64"]),
        (["--method", "clse", "--keep", "0.5,64"], ["not a number"]),
        (["--method", "clse+clse"], ["different methods"]),
        (["--method", "evoprune+none"], ["different methods"]),
        (["--method", "evoprune+clse", "--param", "start=0"], ["evoprune.NAME=VALUE"]),
        (
            ["--method", "evoprune+clse", "--param", "clse.start=0"],
            ["unknown parameter of clse 'start'"],
        ),
        (["--method", "evoprune+evoprune"], ["different methods"]),
        (["--method", "evoprune", "--keep", "9"], ["the least is 36", "in more blocks"]),
        (["--method", "evoprune", "--param", "schedule=random"], ["skip | mean | first"]),
        (["--model", "tinyllava"], ["did you mean 'tiny-llava'"]),
        (["--model", "/no/such/folder"], ["no model folder", "tiny-llava"]),
        (["--device", "toaster"], ["toaster", "cpu"]),
        (["--dtype", "int8"], ["int8", "bfloat16"]),
        (["--max-new-tokens", "0"], ["--max-new-tokens", "--help"]),
        (["--max-new-tokens", "many"], ["--max-new-tokens"]),
        (["--save-overlay", "kept.jpg"], [".png"]),
        (["--bogus"], ["--bogus", "prunus run --help"]),
    ],
)
def test_options(cli: Cli, picture: Path, options: list[str], words: list[str]) -> None:
    refused(cli("run", picture, *Q, *options), *words)


def test_files_that_are_no_images(
    cli: Cli, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # long names are shortened, and tmp_path may be long
    refused(cli("run", "gone.png", *Q), "no such image", "gone.png")
    (tmp_path / "text.png").write_text("not a picture")
    refused(cli("run", "text.png", *Q), "no image", "text.png")
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:2000])
    refused(cli("run", "half.png", *Q), "half.png")
    (tmp_path / "empty").mkdir()
    refused(cli("run", "empty", *Q), "no images in the folder")
    refused(cli("run", 5000 * "x", *Q), "no such image")  # no file can have such a name
    tuned = ("--model", "tiny-llava", "--max-loss", 5)
    refused(cli("tune", f"{5000 * 'x'}.jsonl", *tuned), "no such file")


def test_prompts_that_do_not_fit_the_images(cli: Cli, picture: Path) -> None:
    refused(
        cli("run", picture, "--prompt", "<image> or <image>?"),
        "2 <image> placeholders but 1 image is given",
    )
    refused(
        cli("run", picture, picture, "--prompt", "<image>?"),
        "1 <image> placeholder but 2 images are given",
    )
    refused(cli("run", picture, "--prompt", "  "), "empty")
    refused(cli("run", picture), "--prompt")
    refused(cli("run", *Q), "IMAGE")


def test_a_layer_that_the_model_does_not_have(cli: Cli, picture: Path) -> None:
    refused(cli("run", picture, *Q, "--param", "layers=99"), "99")


def test_an_unsupported_family(cli: Cli, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    refused(cli("run", picture, *Q, "--model", tmp_path), "'bert'", "llava")
    (tmp_path / "config.json").write_text("{}")
    refused(cli("run", picture, *Q, "--model", tmp_path), str(tmp_path))


def test_a_place_where_no_picture_can_be_written(cli: Cli, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "kept.png"
    result = cli("run", picture, *Q, "--save-overlay", target, "--max-new-tokens", 1, "--json")
    refused(result, "cannot write the picture")


@pytest.mark.parametrize(
    "arguments",
    [
        ["dmeo"],
        ["demo", "--output", "demo.gif"],
        ["demo", "--method", "fixed"],
        ["builtin", "train", "big-llava"],
        ["builtin", "train", "--minutes", "-1"],
    ],
)
def test_other_commands(cli: Cli, arguments: list[str]) -> None:
    refused(cli(*arguments))


def test_bugs_keep_their_traceback(
    cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        int("this is a bug, not bad input")

    monkeypatch.setattr("prunus.inference.answer.answer", broken)
    with pytest.raises(ValueError, match="invalid literal"):
        app_module.main(["run", str(picture), *Q])


def test_a_torchvision_of_another_build_is_told_in_one_line(
    cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'LlavaProcessor'") from error

    monkeypatch.setattr("prunus.inference.answer.answer", broken)
    refused(cli("run", picture, *Q), "torchvision does not fit torch", "pip uninstall torchvision")


def test_the_traceback_of_bad_input_can_be_asked_for(picture: Path) -> None:
    with pytest.raises(ValueError, match="keep=0"):
        app_module.main(["--traceback", "run", str(picture), *Q, "--keep", "0"])
