"""A server of a technology as a process of the tests' own: started on a free port, killed, started again."""

import shutil
import socket
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, Self

START_TIMEOUT: Final = 20.0


class ServerProcess:
    """A subclass names the `program`, its command line, and the settings that lead a service to it.

    Its data is kept in a folder, and its port stays the same, however often it dies. `with` starts and ends
    it.
    """

    program: ClassVar[str]
    """As it is found on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def arguments(self) -> Sequence[str]:
        """Of the program: to listen on 127.0.0.1 at `port`, and to keep its data in `folder`."""

    @abstractmethod
    def variables(self) -> Mapping[str, str]:
        """The variables of the environment that lead the services to it."""

    def start(self) -> None:
        """Return once it listens. Raises `FileNotFoundError` without its program, else `TimeoutError`."""
        if not (program := shutil.which(self.program)):
            raise FileNotFoundError(f"needs the program {self.program}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([program, *self.arguments()], stdout=log, stderr=log)
        give_up = time.monotonic() + START_TIMEOUT
        while not self._listens():
            if time.monotonic() > give_up or self._process.poll() is not None:
                raise TimeoutError(f"{self.program} does not listen: see {self.folder / 'log'}")
            time.sleep(0.01)

    def kill(self) -> None:
        """As a crash ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.kill()

    def _listens(self) -> bool:
        with socket.socket() as trying:
            return trying.connect_ex(("127.0.0.1", self.port)) == 0
