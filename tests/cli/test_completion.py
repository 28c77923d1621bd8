"""Shell completion."""

import subprocess

import pytest

from cli.main import COMMANDS, main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_contains_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in script] == []
    assert "warm-up-epochs" in script


def test_bash_completes_commands_with_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    completion = 'COMP_WORDS=(lamanas train st); COMP_CWORD=2; _shtab_lamanas; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{completion}"], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["start"], done.stderr
