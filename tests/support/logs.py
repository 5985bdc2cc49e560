"""What is logged, kept in memory."""

from clinic.entrypoints.log_writer import LogWriter


class Written(LogWriter):
    """All that was written to it, and what of it was urgent."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.text = self.urgent = ""

    def write(self, text: str, *, urgent: bool = False) -> None:
        self.text += text
        self.urgent += text if urgent else ""

    def getvalue(self) -> str:
        return self.text
