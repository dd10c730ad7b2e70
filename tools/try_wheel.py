"""Build the wheel, install it into an empty environment without our constraints, and use it there.

This is what a user's ``pip install`` gives: no extras, the newest of every dependency. Only torch
may be lent by the environment that runs this, because it is large; everything else is installed.
The commands run without a network.

    python tools/try_wheel.py             # torch is lent
    python tools/try_wheel.py --own-torch # torch is installed as well
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Extras of prunus: the base has to do without them.
EXTRAS = ("torchvision", "av", "sklearn", "accelerate", "peft", "tensorboard")

#: Imported by the environment's Python at its start: nothing may ask the network.
NO_NETWORK = """
import socket

def refuse(*args, **kwargs):
    raise OSError("the network is switched off: what was installed has to be enough")

socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = refuse
"""

GENERATE = """
import importlib.util, json, sys
import prunus, torch, transformers
from prunus.tasks.sample import load_sample

kept = {}
for name in ("tiny-llava", "tiny-qwen"):
    model, processor = prunus.load(name)
    image, questions = load_sample()
    content = [{"type": "image"}, {"type": "text", "text": questions[0].text}]
    text = f"USER: <image>\\n{questions[0].text} ASSISTANT:"
    if processor.chat_template:
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    inputs = processor(images=image, text=text, return_tensors="pt")
    with prunus.prune(model, prunus.CLSE(keep=9)) as run:
        out = model.generate(**inputs, max_new_tokens=4)
    assert out.shape[1] > inputs["input_ids"].shape[1]
    kept[name] = run.report()["tokens"]["kept"]
extras = [name for name in sys.argv[1].split(",") if importlib.util.find_spec(name)]
print(json.dumps({
    "kept": kept,
    "extras": extras,
    "prunus": prunus.__file__,
    "torch": torch.__version__,
    "transformers": transformers.__version__,
}))
"""


def call(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"failed ({done.returncode}): {' '.join(map(str, command))}")
    return done.stdout


def lend(distribution: str, folder: Path) -> None:
    """Links in ``folder`` to the files of an installed ``distribution``, and to its metadata."""
    found = importlib.metadata.distribution(distribution)
    tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "bin")}
    for top in tops:
        place = Path(str(found.locate_file(top)))
        if place.exists():
            (folder / top).symlink_to(place)


def environment(folder: Path, wheel: Path, own_torch: bool, env: dict[str, str]) -> Path:
    """A new environment in ``folder`` with the wheel and what pip finds for it; its ``bin``."""
    venv.create(folder / "venv", with_pip=True)
    binaries = folder / "venv" / "bin"
    if not own_torch:
        lent = folder / "lent"
        lent.mkdir()
        lend("torch", lent)
        [site] = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "lent.pth").write_text(f"{lent}\n")
    call(binaries / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder, env=env)
    return binaries


def try_wheel(folder: Path, own_torch: bool) -> dict[str, object]:
    """Build, install and use the wheel below ``folder``; what was seen."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env.pop("VIRTUAL_ENV", None)
    wheels = folder / "wheels"
    pip = (sys.executable, "-m", "pip")
    call(*pip, "wheel", ROOT, "--no-deps", "--quiet", "-w", wheels, cwd=folder, env=env)
    [wheel] = wheels.glob("prunus-*.whl")
    binaries = environment(folder, wheel, own_torch, env)
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "no_network.py").write_text(NO_NETWORK)
    (site / "no_network.pth").write_text("import no_network\n")

    cwd = folder / "elsewhere"
    cwd.mkdir()
    env["HF_HOME"] = str(folder / "no-models-here")
    call(binaries / "prunus", "demo", "--output", "demo.png", cwd=cwd, env=env)
    held = call(binaries / "prunus", "constraints", cwd=cwd, env=env)
    seen_torch = call(
        binaries / "python", "-c", "import torch; print(torch.__version__)", cwd=cwd, env=env
    )
    assert f"torch=={seen_torch.partition('+')[0].strip()}" in held, held
    assert "torchvision==" in held, held
    picture = call(
        binaries / "python",
        "-c",
        "from prunus.tasks.sample import load_sample; load_sample()[0].save('sample.png')",
        cwd=cwd,
        env=env,
    )
    assert not picture and (cwd / "demo.png").stat().st_size > 10_000
    run = ("run", "sample.png", "--prompt", "how many objects are there?", "--keep", "64", "--json")
    answered = json.loads(
        call(binaries / "prunus", *run, "--save-overlay", "kept.png", cwd=cwd, env=env)
    )
    assert answered["tokens"]["kept"] == 64 and (cwd / "kept.png").exists(), answered
    seen = json.loads(call(binaries / "python", "-c", GENERATE, ",".join(EXTRAS), cwd=cwd, env=env))
    assert seen["kept"] == {"tiny-llava": 9, "tiny-qwen": 9}, seen
    assert str(seen["prunus"]).startswith(str(folder)), "another prunus was imported"
    assert not seen["extras"], f"the environment is not empty: it has {seen['extras']}"
    return {**seen, "answer": answered["answer"], "wheel": wheel.name}


def main() -> None:
    """Try the wheel in a folder that is thrown away, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--own-torch", action="store_true", help="install torch, do not lend it")
    own_torch = parser.parse_args().own_torch
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(try_wheel(Path(folder).resolve(), own_torch), indent=2))


if __name__ == "__main__":
    main()
