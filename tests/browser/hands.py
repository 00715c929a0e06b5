"""How a person works a page: by mouse, or by keyboard alone, without a look at where the pointer is."""

from pathlib import Path
from typing import Any, Protocol

_MOST_TABS = 400


class Hands(Protocol):
    def press(self, target: Any) -> None:
        """A link or a button."""

    def tick(self, target: Any) -> None:
        """A check box."""

    def write(self, target: Any, text: str) -> None: ...

    def choose(self, target: Any, option: str) -> None:
        """The option of a select that begins so."""

    def attach(self, target: Any, file: Path) -> None: ...


class Mouse:
    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, target: Any) -> None:
        target.click()

    tick = press

    def write(self, target: Any, text: str) -> None:
        target.click()
        target.fill(text)

    def choose(self, target: Any, option: str) -> None:
        every = target.evaluate("select => [...select.options].map((each) => each.label)")
        target.select_option(label=next(each for each in every if each.startswith(option)))

    def attach(self, target: Any, file: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            target.click()
        chooser.value.set_files(file)


class Keyboard:
    def __init__(self, page: Any) -> None:
        self.page, self.keys = page, page.keyboard

    def press(self, target: Any) -> None:
        self._reach(target)
        self.keys.press("Enter")

    def tick(self, target: Any) -> None:
        self._reach(target)
        self.keys.press("Space")

    def write(self, target: Any, text: str) -> None:
        self._reach(target)
        self.keys.press("Control+A")
        self.keys.type(text)

    def choose(self, target: Any, option: str) -> None:
        """By typing how it begins, as one does in a select."""
        self._reach(target)
        self.keys.type(option)
        assert target.evaluate("select => select.selectedOptions[0].label").startswith(option)

    def attach(self, target: Any, file: Path) -> None:
        self._reach(target)
        with self.page.expect_file_chooser() as chooser:
            self.keys.press("Enter")
        chooser.value.set_files(file)

    def _reach(self, target: Any) -> None:
        """Move the focus there, from wherever it is."""
        target.wait_for()
        for _ in range(_MOST_TABS):
            if target.evaluate("each => each === document.activeElement"):
                return
            self.keys.press("Tab")
        raise AssertionError(f"no key leads to {target}")
