"""`nox` checks all that has to hold, on one Python; `nox -s tests` runs the tests on every one."""

from __future__ import annotations

import shutil
from pathlib import Path
from zipfile import ZipFile

import nox
from packaging.requirements import Requirement

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

CONSTRAINTS = Path(".ci/constraints.txt")
BENCH_CONSTRAINTS = Path(".ci/constraints-bench.txt")

# Tests run on the installed package: they must not find the folder they are next to.
INSTALLED = {"PYTHONSAFEPATH": "1"}

# Where syncing takes no time, if there is room: what they test is that it is done, not the disk.
MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own there
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 31:
    INSTALLED["TMPDIR"] = str(MEMORY)

# What a user without extras has; the rest of the tests says nothing new there.
CORE = ("tests/memory", "tests/test_architecture.py")

NONE_FOUND = """
import sys
from importlib.util import find_spec
sys.exit([f"{name} is installed" for name in sys.argv[1:] if find_spec(name)] or 0)
"""

OPENS = """
import asyncio
from memory_async import SqliteStorage
asyncio.run(SqliteStorage().open())
"""

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "no_extras", "coverage", "build"]
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


def install(session: nox.Session, *what: str, constraints: Path = CONSTRAINTS) -> None:
    session.install("--constraint", str(constraints), *what)


def group(*names: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, *names)


def existing(*paths: str) -> list[str]:
    return [path for path in paths if any(Path(path).glob("**/*.py")) or Path(path).is_file()]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules, and its format."""
    install(session, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """The types, by mypy and by pyright."""
    install(session, ".[all]", *group("test", "lint"))
    session.run("mypy", *existing("memory_async", "tests", "examples", "noxfile.py"))
    session.run("pyright", *existing("memory_async", "tests/typing", "examples", "noxfile.py"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, on every Python that is found here."""
    install(session, ".[all]", *group("test", "mem0"))
    session.run("python", "-m", "pytest", *session.posargs, env=INSTALLED)


@nox.session
def no_extras(session: nox.Session) -> None:
    """The tests that need no extra: those that do skip themselves (`pytest.importorskip`)."""
    install(session, ".[testing]")
    extras = PYPROJECT["project"]["optional-dependencies"]
    optional = {Requirement(each).name for name in extras for each in extras[name]}
    optional -= {"memory-async", *(Requirement(each).name for each in extras["testing"])}
    session.run("python", "-c", NONE_FOUND, *sorted(optional))
    session.run("python", "-m", "pytest", *(session.posargs or CORE), env=INSTALLED)


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests with all extras, and how much of the package they reach."""
    install(session, ".[all]", *group("test", "mem0"))
    session.run("coverage", "erase")
    where = ("--numprocesses=3", "--dist=loadscope")
    measured = ("--cov", "--cov-report=term-missing:skip-covered")
    session.run("python", "-m", "pytest", *where, *measured, *session.posargs, env=INSTALLED)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take minutes: more of what runs on the slow test servers in `coverage`."""
    install(session, ".[all]", *group("test", "mem0"))
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs, env=INSTALLED)


@nox.session
def build(session: nox.Session) -> None:
    """Sdist and wheel: nothing is missing, and the wheel works where nothing else is."""
    install(session, *group("build"))
    made = Path(session.create_tmp()).resolve()
    shutil.rmtree(made)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(made))

    (wheel,) = made.glob("*.whl")
    files = [path for path in Path("memory_async").glob("**/*.*") if path.is_file()]
    wanted = {path.as_posix() for path in files if path.suffix in (".py", ".sql", ".lua", ".typed")}
    if missing := wanted - set(ZipFile(wheel).namelist()):
        session.error(f"not in the wheel: {sorted(missing)}")

    python = str(made / "environment" / "bin" / "python")
    session.run("python", "-m", "venv", str(made / "environment"))
    session.run(
        *(python, "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), str(wheel)),
        external=True,
    )
    with session.chdir(made):
        session.run(python, "-c", OPENS, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks named after `--`, with their options: `nox -s bench -- benchmarks/x.py`."""
    scripts = [each for each in session.posargs if each.endswith(".py")]
    options = [each for each in session.posargs if each not in scripts]
    if not scripts:
        session.error("which ones? nox -s bench -- benchmarks/….py")
    install(session, ".[all]", *group("bench"), constraints=BENCH_CONSTRAINTS)
    for script in scripts:
        session.run("python", script, *options)


@nox.session
def constraints(session: nox.Session) -> None:
    """Write the pins in .ci anew, from what the index has today."""
    session.install("uv")
    for path, groups in ((CONSTRAINTS, ("dev",)), (BENCH_CONSTRAINTS, ("bench",))):
        pins = session.run(
            *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]),
            *("--no-header", "--no-annotate", "--all-extras"),
            *(f"--group={name}" for name in groups),
            "pyproject.toml",
            silent=True,
        )
        path.write_text(f"# What the checks install. To write it anew: nox -s constraints\n{pins}")
