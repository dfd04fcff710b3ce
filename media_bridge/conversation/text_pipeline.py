"""The text pipeline of one attached call: speech to text, language model, text to speech."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from media_bridge.audio import playout as out
from media_bridge.call_link import CallLink
from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.core import Conversation
from media_bridge.conversation.ear import Ear
from media_bridge.conversation.pipeline import Pipeline
from media_bridge.conversation.reply import ReplyFailure, stream_reply
from media_bridge.conversation.voice import Voice
from media_bridge.providers.loading import Providers
from media_bridge.records import RecordSender
from stayline.errors import ProviderError
from stayline.messages import Grant


class TextPipeline(Pipeline):
    """STT, language model and TTS around one conversation. Arguments as `Pipeline`'s."""

    def __init__(
        self,
        grant: Grant,
        providers: Providers,
        link: CallLink,
        send: Callable[[list[out.Outbound]], None],
        records: RecordSender,
        clock: Callable[[], float],
    ) -> None:
        conversation = Conversation(
            grant.agent,
            datetime.now(UTC),
            grant.messages,
            grant.running_tools,
            grant.resumed,
            grant.note,
        )
        super().__init__(grant, conversation, link, send, records, clock)
        self._providers = providers
        call_id = grant.call.call_id
        self._ear = Ear(providers.stt, call_id, self._heard, self._provider_failed, self._provider_changed)
        self._voice = Voice(
            providers.tts,
            call_id,
            self._audio,
            self._voiced,
            self._provider_failed,
            self._provider_changed,
            self._voiceless,
        )
        self._llm = grant.agent.llm[0]  #: who gave the last reply
        self._replies: dict[int, asyncio.Task[None]] = {}
        self._said_at: dict[int, int] = {}  #: utterance -> stream time of its first clause
        self._voiced_in: dict[int, int] = {}  #: utterance -> milliseconds from there to its first audio

    def _begin(self) -> None:
        self._spawn(self._voice.run())
        self._spawn(self._listen())

    def _provide(self, command: do.Command) -> None:
        match command:
            case do.Say(utterance, text):
                if self._playout.add_text(utterance, text):
                    self._said_at[utterance] = self._now()
                self._voice.say(utterance, text)
            case do.EndUtterance(utterance):
                self._voice.end(utterance)
            case do.DropSpeech():
                self._voice.drop()
                self._drop_speech()
            case do.StartReply(reply):
                self._replies[reply] = self._spawn(self._reply(command))
            case do.CancelReply(reply):
                if (task := self._replies.pop(reply, None)) is not None:
                    task.cancel()
            case _:
                raise AssertionError(f"{command} is not of the text pipeline")

    async def _reply(self, command: do.StartReply) -> None:
        reply = command.reply
        try:
            async for event in stream_reply(
                self._providers.llm, self._grant, reply, command.messages, self._provider_failed, self._replies_by
            ):
                if reply not in self._replies:
                    return
                if isinstance(event, (ev.ReplyText, ev.ReplyTool)):
                    self.feed(event)
                    await asyncio.sleep(0)  # of many tokens at once, the voice begins with the first clause
                else:
                    self._records.put(event)
        except ReplyFailure:
            self._replies.pop(reply, None)
            self.feed(ev.ReplyFailed(reply))
        else:
            self._replies.pop(reply, None)
            self.feed(ev.ReplyDone(reply))

    def _replies_by(self, ref: str) -> None:
        if ref != self._llm:
            refs = self._agent.llm
            better = refs.index(ref) < refs.index(self._llm)
            self._llm = ref
            self._provider_changed("llm", ref, "recovered" if better else "failed")

    # --- voice and ear ---

    def _listen_to(self, audio: bytes) -> None:
        self._ear.audio(audio)

    async def _listen(self) -> None:
        try:
            await self._ear.run()
        except ProviderError:
            # Every recogniser failed: say so, and let the workflow end the call.
            self.feed(ev.SayRequested(self._agent.apology_text, "apology"))
            await self._link.end("no speech recogniser works")

    def _heard(self, event: ev.Event) -> None:
        """The ear counts from the caller's first audio, the conversation from the session's beginning."""
        start = self._caller.begun_ms
        match event:
            case ev.CallerTurn(text, confidence, int(end_ms), speech_ms):
                event = ev.CallerTurn(text, confidence, end_ms + start, speech_ms)
            case ev.CallerSpoke(int(at_ms)):
                event = ev.CallerSpoke(at_ms + start)
        self.feed(event)

    def _audio(self, utterance: int, audio: bytes, chars: int | None) -> None:
        if (said := self._said_at.pop(utterance, None)) is not None:
            self._voiced_in[utterance] = self._now() - said
        self._playout.add_audio(utterance, audio, chars)
        self.pump()

    def _voiced(self, utterance: int) -> None:
        self._playout.close(utterance)
        self.pump()

    def _tts_ms(self, utterance: int) -> int | None:
        return self._voiced_in.pop(utterance, None)

    def _speech_ended(self, ended: out.Ended) -> None:
        self._said_at.pop(ended.utterance, None)
        self._voiced_in.pop(ended.utterance, None)
        super()._speech_ended(ended)
