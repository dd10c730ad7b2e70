"""The vocabulary of the built-in models: whole words for the task, characters for the rest."""

from __future__ import annotations

import string

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from prunus.tasks.scenes import COLORS, KINDS

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
DIGITS = tuple(string.digits)
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
DIRECTIONS = ("left", "right", "above", "below")

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
ROLES = ("USER:", "ASSISTANT:")

#: One turn of a dialogue is ``USER: question ASSISTANT: answer</s>``; the image comes first.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}{% else %}{{ 'USER: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for item in message['content'] if item['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

_PLURALS = tuple(f"{kind}{'es' if kind == 'cross' else 's'}" for kind in KINDS)
_OTHER = [
    "a",
    "an",
    "the",
    "is",
    "are",
    "there",
    "any",
    "how",
    "many",
    "what",
    "which",
    "where",
    "in",
    "of",
    "on",
    "to",
    "and",
    "or",
    "not",
    "no",
    "yes",
    "image",
    "picture",
    "color",
    "colour",
    "shape",
    "object",
    "objects",
    "thing",
    "things",
    "digit",
    "number",
    "kind",
    "side",
    "position",
    "located",
    "shown",
    "written",
    "describe",
    "list",
    "scene",
    "look",
    "see",
    "do",
    "you",
    "can",
    "it",
    "its",
    "than",
    "more",
    "with",
    "one",
    "written",
    "background",
    "nothing",
    "something",
    "none",
    "please",
    "answer",
]


def vocabulary() -> list[str]:
    """All tokens in the order of their ids: specials, words, single characters, continuations."""
    words = [*COLORS, *KINDS, *_PLURALS, *NUMBERS, *DIGITS, *ROWS, *COLUMNS, *DIRECTIONS, *_OTHER]
    chars = string.ascii_lowercase + string.digits + string.punctuation
    everything = [*SPECIAL, *ROLES, *words, *chars, *(f"##{c}" for c in chars)]
    return list(dict.fromkeys(everything))  # first occurrence of each, in order


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing word-level tokenizer that spells unknown words, with left padding."""
    vocab = {token: index for index, token in enumerate(vocabulary())}
    core = Tokenizer(WordPiece(vocab=vocab, unk_token="<unk>", max_input_chars_per_word=200))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    # roles are matched in the raw text and stay visible when special tokens are skipped
    core.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    core.add_tokens([AddedToken(t, normalized=False, special=False) for t in ROLES])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
