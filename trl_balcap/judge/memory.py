"""Verdicts by image and assertion, across batches, epochs and runs."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from trl_balcap.judge import questions
from trl_balcap.judge.cache import ReplyCache
from trl_balcap.judge.gathering import Shown
from trl_balcap.judge.questions import Question
from trl_balcap.judge.replies import Verification, VerifyForm
from trl_balcap.judge.tickets import UnreadableReply

MOST = 65_536  # verdicts in this process; the least recently used are dropped first


class VerdictMemory:
    """A judge's verdicts on single assertions, kept in this process and in the reply cache.

    Args:
        key (`Callable`):
            Returns the key under which a question's answer is stored. It includes everything that
            can change the answer.
        cache ([`ReplyCache`], *optional*):
            The reply cache on disk.
        model (`str`):
            Name of the model that answers.
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
        """Known verdicts, by assertion."""
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
                    continue  # stored by a release that could read it
                self._keep(keys[text], found[text])
        return found

    async def remember(self, images: Shown, verdicts: Mapping[str, Verification]) -> None:
        """Store verdicts; they are on disk when this returns."""
        stored = {}
        for text, verdict in verdicts.items():
            key = self._key_of(questions.verify(images, [text]))
            self._keep(key, verdict)
            form = VerifyForm.model_validate({"verdicts": [{"id": 1, **verdict._asdict()}]})
            stored[key] = form.model_dump_json()
        if self._cache is not None:
            await self._cache.set_all(stored, self._model)

    def _key_of(self, question: Question[tuple[Verification, ...]]) -> str:
        # Not the key of the question itself: a caption verified alone never uses these verdicts.
        return f"{self._key(question)}-united"

    def _keep(self, key: str, verdict: Verification) -> None:
        self._kept[key] = verdict
        self._kept.move_to_end(key)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
