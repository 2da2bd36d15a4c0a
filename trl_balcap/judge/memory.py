"""Verdicts by image and assertion, across batches, epochs and runs."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from trl_balcap.judge import questions
from trl_balcap.judge.cache import ReplyCache
from trl_balcap.judge.gathering import Shown
from trl_balcap.judge.questions import Question
from trl_balcap.judge.replies import Verification, VerifyForm
from trl_balcap.judge.tickets import UnreadableReply

MOST = 65_536  # verdicts in this process, those used least recently go first


class VerdictMemory:
    """What a judge said of single assertions, in this process and in the cache of replies.

    Args:
        key (`Callable`):
            From a question to what its answer is kept under; all that can change the answer is
            part of it.
        cache ([`ReplyCache`], *optional*):
            The replies on disk.
        model (`str`):
            Who answers.
    """

    def __init__(
        self,
        key: Callable[[Question[tuple[Verification, ...]]], str],
        cache: ReplyCache | None,
        model: str,
    ):
        self._key = key
        self._cache = cache
        self._model = model
        self._kept: OrderedDict[str, Verification] = OrderedDict()

    async def recall(self, images: Shown, texts: Sequence[str]) -> dict[str, Verification]:
        """The verdicts that are known, by assertion."""
        asked = {text: questions.verify(images, [text]) for text in texts}
        keys = {text: self._key_of(question) for text, question in asked.items()}
        found: dict[str, Verification] = {}
        for text, key in keys.items():
            if key in self._kept:
                self._kept.move_to_end(key)
                found[text] = self._kept[key]
        missing = [text for text in texts if text not in found]
        if self._cache is None or not missing:
            return found
        stored = await self._cache.get_all([keys[text] for text in missing])
        for text, reply in zip(missing, stored, strict=True):
            if reply is not None:
                try:
                    (found[text],) = asked[text].recall(reply.text)
                except UnreadableReply:
                    continue  # stored by a release that read it
                self._keep(keys[text], found[text])
        return found

    async def remember(self, images: Shown, verdicts: Mapping[str, Verification]) -> None:
        """Keep verdicts; they are on disk when this returns."""
        stored = {}
        for text, verdict in verdicts.items():
            key = self._key_of(questions.verify(images, [text]))
            self._keep(key, verdict)
            form = VerifyForm.model_validate({"verdicts": [{"id": 1, **verdict._asdict()}]})
            stored[key] = form.model_dump_json()
        if self._cache is not None:
            await self._cache.set_all(stored, self._model)

    def _key_of(self, question: Question[tuple[Verification, ...]]) -> str:
        # Not that of the question itself: what was asked alone is never answered from here.
        return f"{self._key(question)}-united"

    def _keep(self, key: str, verdict: Verification) -> None:
        self._kept[key] = verdict
        self._kept.move_to_end(key)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
