"""The vocabulary of ``tiny-qwen``: the words of ``tiny-llava``, those of videos, Qwen's marks."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from prunus.tasks import words as llava
from prunus.tasks.videos import MOTIONS

PAD, START, END, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO, UNKNOWN)
ROLES = ("system", "user", "assistant")

#: Tokens of ``tiny-llava`` that mean the same under another name.
SAME = {PAD: "<pad>", START: "<s>", END: "</s>", "user": "USER:", "assistant": "ASSISTANT:"}

_VIDEO_WORDS = (
    *MOTIONS,
    *("video", "frame", "way", "move", "moves", "moving", "stand", "stands", "motion"),
    *("appear", "appears", "disappear", "disappears", "come", "comes", "go", "goes", "happens"),
    *("first", "last", "before", "after", "at", "end", "start", "beginning", "then", "when"),
    *("that", "be", "all", "does"),
)

#: One message is ``<|im_start|>role\n...<|im_end|>\n``, images and videos between their marks.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif item['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def vocabulary() -> list[str]:
    """All tokens in the order of their ids."""
    old = [word for word in llava.vocabulary() if word not in (*llava.SPECIAL, *llava.ROLES)]
    return list(dict.fromkeys([*SPECIAL, *ROLES, *old, *_VIDEO_WORDS]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing word-level tokenizer that spells unknown words, with left padding."""
    vocab = {token: index for index, token in enumerate(vocabulary())}
    core = Tokenizer(WordPiece(vocab=vocab, unk_token=UNKNOWN, max_input_chars_per_word=200))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE, "video_token": VIDEO},
        additional_special_tokens=[START, VISION_START, VISION_END],
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
