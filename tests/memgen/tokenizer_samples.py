"""Small tokenizers of the kinds that bases come with, and how their tokens are named."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.fixtures_model import save_tiny_tokenizer

STRADDLING = ("hello", " the", ".\n", '.",', " ,", "\n\n", "42", "1.", "</step", "日", "é", "a")
"""Multi-byte tokens of `merged_tokenizer`, beside two that are parts of characters."""


def byte_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A token per byte; byte b is id `byte_id(b)`, ids 0 to 2 are special."""
    save_tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def merged_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE: every byte, and tokens that are words, end in delimiters or cut through characters."""
    alphabet = _byte_letters()
    pieces = [text.encode() for text in STRADDLING] + [b"\xa9\xe6", b"\xa5.", b"x\xf0\x9f"]
    names = ["<unk>", *alphabet, *("".join(alphabet[byte] for byte in piece) for piece in pieces)]
    tokenizer = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(dict.fromkeys(names))}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>")


def spaces_tokenizer() -> PreTrainedTokenizerBase:
    """As SentencePiece models decode: "▁" is a space, the first one of a text is stripped, bytes are `<0xNN>`."""
    names = ["<s>", "▁", "▁a", "▁b", "b", ".", ",", "3", "▁.", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def byte_id(tokenizer: PreTrainedTokenizerBase, byte: int) -> int:
    """Of a byte-level tokenizer."""
    return tokenizer.convert_tokens_to_ids(_byte_letters()[byte])


def byte_ids(tokenizer: PreTrainedTokenizerBase, text: str | bytes) -> list[int]:
    """A token per byte, of a byte-level tokenizer."""
    raw = text.encode() if isinstance(text, str) else text
    letters = _byte_letters()
    return tokenizer.convert_tokens_to_ids([letters[byte] for byte in raw])


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: itself if it is printable, else one from 256 on."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    substitutes = iter(range(256, 512))
    letters = [chr(byte) if byte in shown else chr(next(substitutes)) for byte in range(256)]
    if set(letters) != set(pre_tokenizers.ByteLevel.alphabet()):
        raise ValueError("the letters are not those of byte-level BPE")
    return letters


class CountingTokenizer:
    """Decodes as `tokenizer` does and notes how many tokens each call decoded."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.decoded: list[int] = []

    def decode(self, token_ids: list[int], **options: bool) -> str:
        self.decoded.append(len(token_ids))
        return self._tokenizer.decode(token_ids, **options)
