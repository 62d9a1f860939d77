"""A user's checkout, in which the commands of the docs are typed as they stand."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testkit.command import Done, environment
from testkit.measured import ROOT
from tests.cluster.registry import write_docker

_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build")
_AT_THE_TOP = {"runs", "site"}  # what a checkout's user has made


@dataclass
class Checkout:
    """`folder` is what a clone would hold; `words` are what the docs leave to their reader, and what this one describes."""

    folder: Path
    words: dict[str, str]
    kubeconfig: str

    @classmethod
    def made(cls, folder: Path, words: dict[str, str], kubeconfig: str) -> "Checkout":
        shutil.copytree(ROOT, folder / "queue-eval", ignore=_left_out)
        shutil.copy(ROOT / ".dockerignore", folder / "queue-eval")
        (folder / "bin").mkdir()
        write_docker(folder / "bin")
        return cls(folder / "queue-eval", words, kubeconfig)

    def commands(self, heading: str) -> list[str]:
        """The first block of commands under a heading of docs/how-to/kubernetes.md."""
        text = (self.folder / "docs" / "how-to" / "kubernetes.md").read_text()
        section = text.split(f"\n## {heading}\n", 1)[1]
        block: str = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0]
        return block.replace("\\\n", "").splitlines()

    def typed(self, command: str, **more: str) -> Done:
        for word, printed in self.words.items():
            command = command.replace(word, printed)
        program = Path(sys.executable).parent
        path = f"{self.folder.parent / 'bin'}:{program}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=environment(KUBECONFIG=self.kubeconfig, PATH=path, **more),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def edited(self, file: str, before: str, after: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert before in text, (file, before)
        path.write_text(text.replace(before, after))


def _left_out(folder: str, names: list[str]) -> set[str]:
    return _LEFT_OUT(folder, names) | (_AT_THE_TOP & set(names) if Path(folder) == ROOT else set())
