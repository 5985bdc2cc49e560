"""What is logged, kept in memory."""

from clinic.entrypoints.log_writer import LogWriter


class Written(LogWriter):
    """All that was written to it."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.text = ""

    def write(self, text: str, *, urgent: bool = False) -> None:  # noqa: ARG002 — nothing waits here
        self.text += text

    def getvalue(self) -> str:
        return self.text
