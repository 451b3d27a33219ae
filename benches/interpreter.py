"""Prints the interpreter that the benches run on. `make bench` asks it, run by the interpreter of `.venv`.

That is the system's own Python, if it is of the same version and sees the same packages: distributions build it with
profile-guided optimisation, as python.org, conda and uv do theirs, while pyenv does not unless told to, and a call of a
function then costs a third more. `BENCH_PYTHON` names another one. Where there is none, the one of `.venv` is taken.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv" / "bench"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
WHAT_BENCHES_NEED = (
    "import gameserver, msgspec, uvloop, google.protobuf, numpy, sys; print(sys.implementation.cache_tag)"
)


def main() -> None:
    """Makes an environment of that interpreter beside `.venv`, with the packages of `.venv`."""
    wanted = os.environ.get("BENCH_PYTHON")
    candidate = shutil.which(wanted or f"/usr/bin/python{MINOR}")
    if wanted and candidate is None:
        sys.exit(f"BENCH_PYTHON={wanted}: there is no such interpreter")
    if candidate is not None and (made := _environment(candidate)):
        print(made)
    elif wanted:
        sys.exit(f"BENCH_PYTHON={wanted}: it has to be a Python {MINOR}, as .venv, since it uses the packages of .venv")
    else:
        print(sys.executable)


def _environment(interpreter: str) -> str | None:
    """Its interpreter; None if it can't be made, or can't import what the benches need."""
    python = PLACE / "bin" / "python"
    shutil.rmtree(PLACE, ignore_errors=True)
    made = subprocess.run([interpreter, "-m", "venv", "--without-pip", PLACE], capture_output=True, check=False)
    own = PLACE / "lib" / f"python{MINOR}" / "site-packages"
    if made.returncode or not own.is_dir():
        return None
    packages = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})" for path in packages]  # their .pth files count, too
    (own / "packages_of_venv.pth").write_text("\n".join(lines) + "\n")
    asked = subprocess.run([python, "-c", WHAT_BENCHES_NEED], capture_output=True, text=True, check=False)
    return str(python) if asked.stdout.strip() == sys.implementation.cache_tag else None


if __name__ == "__main__":
    main()
