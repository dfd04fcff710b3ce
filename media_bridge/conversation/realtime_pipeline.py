"""The realtime pipeline of one attached call: one model that hears and speaks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from media_bridge.audio import playout as out
from media_bridge.audio.loudness import LOUD, loudness
from media_bridge.call_link import CallLink
from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.conversation.model_link import ModelLink
from media_bridge.conversation.pipeline import Pipeline
from media_bridge.conversation.realtime_core import RealtimeConversation
from media_bridge.conversation.reply import tools_for
from media_bridge.providers.base import (
    CallerTranscript,
    Expiring,
    LlmUsage,
    Partial,
    RealtimeEvent,
    RealtimeProfile,
    RealtimeRequest,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    SpeechStarted,
    SpeechStopped,
    ToolCallDelta,
    ToolCancelled,
)
from media_bridge.providers.loading import Providers
from media_bridge.records import RecordSender
from stayline.catalog import Role
from stayline.errors import ProviderError
from stayline.messages import Grant
from stayline.timeline import ChangeReason, Usage


class RealtimePipeline(Pipeline):
    """A voice-to-voice model around one conversation. Arguments as `Pipeline`'s."""

    def __init__(
        self,
        grant: Grant,
        providers: Providers,
        link: CallLink,
        send: Callable[[list[out.Outbound]], None],
        records: RecordSender,
        clock: Callable[[], float],
    ) -> None:
        self._conversation = RealtimeConversation(
            grant.agent,
            datetime.now(UTC),
            grant.messages,
            grant.running_tools,
            grant.resumed,
            grant.note,
        )
        super().__init__(grant, self._conversation, link, send, records, clock)
        self._model = ModelLink(
            providers.realtime,
            self._request,
            self._heard,
            self._lost,
            self._back,
            lambda: self._conversation.may_renew,
            self._needed_from,
            self._provider_failed,
            self._serves,
        )
        self._ref = grant.agent.realtime[0]
        self._tools = tools_for(grant.agent)
        self._utterances: dict[str, int] = {}  #: of the responses under way
        self._spoke_at: int | None = None  #: stream time since which the caller speaks
        self._loud_at = 0  #: stream time of the caller's last loud frame

    def _begin(self) -> None:
        self._spawn(self._keep_connected())

    async def _keep_connected(self) -> None:
        try:
            await self._model.run()
        except ProviderError:
            self._voiceless()

    def _request(self, resume: str) -> RealtimeRequest:
        return RealtimeRequest(
            instructions=self._agent.instructions,
            messages=() if resume else self._conversation.opening(),
            tools=self._tools,
            call_id=self._grant.call.call_id,
            interruption=self._agent.turn_taking.interruption,
            resume=resume,
        )

    # --- commands ---

    def _provide(self, command: do.Command) -> None:
        match command:
            case do.OpenSpeech(response, utterance):
                self._utterances[response] = utterance
                self._playout.add_text(utterance, "")
            case do.AddText(utterance, text):
                self._playout.add_text(utterance, text)
            case do.EndUtterance(utterance, cut):
                self._playout.close(utterance, cut=cut)
                self.pump()
            case do.DropSpeech():
                self._drop_speech()
            case do.AskToSay(text):
                self._model.send(lambda session: session.say(text))
            case do.Respond():
                self._model.send(lambda session: session.respond())
            case do.TellModel(text):
                self._model.send(lambda session: session.note(text))
            case do.AnswerTool(result, respond):
                self._model.send(lambda session: session.tool_result(result, respond=respond))
            case do.CancelResponse():
                self._model.send(lambda session: session.cancel())
            case do.Truncate(response, heard_ms):
                self._model.send(lambda session: session.truncate(response, heard_ms))
            case do.GiveUpModel():
                self._model.give_up()
            case _:
                raise AssertionError(f"{command} is not of the realtime pipeline")

    # --- the model ---

    def _listen_to(self, audio: bytes) -> None:
        level = loudness(audio)
        if level > LOUD:
            self._loud_at = self._now()
        self._model.audio(audio, level)

    def _needed_from(self) -> int:
        return max(0, self._conversation.replay_from(self._now()) - self._caller.begun_ms)

    def _lost(self) -> None:
        self._utterances.clear()
        self._spoke_at = None
        self.feed(ev.ModelLost())

    def _back(self, profile: RealtimeProfile, knows_tools: bool) -> None:
        self._conversation.profile = profile
        self.feed(ev.ModelBack(knows_tools))

    def _serves(self, role: Role, ref: str, why: ChangeReason) -> None:
        self._ref = ref
        self._provider_changed(role, ref, why)

    def _heard(self, event: RealtimeEvent, offset_ms: int) -> None:
        """An event of the model. Its stream positions begin at `offset_ms` of the caller's audio."""
        start = offset_ms + self._caller.begun_ms
        profile = self._conversation.profile
        match event:
            case SpeechStarted(at_ms):
                if self._spoke_at is None:
                    self._spoke_at = start + at_ms
                self.feed(ev.CallerSpoke(start + at_ms))
            case SpeechStopped(at_ms):
                self._stopped(start + at_ms)
            case Partial(text):
                self.feed(ev.CallerPartial(text))
            case CallerTranscript(text, failed):
                self._guess_stop(profile)
                self.feed(ev.CallerWords(text, failed))
            case ResponseStarted(response, by_itself):
                self._guess_stop(profile)
                self.feed(ev.ResponseBegan(response, by_itself))
            case ResponseText(response, text):
                self.feed(ev.ResponseSaid(response, text))
            case ResponseAudio(response, audio):
                self.feed(ev.ResponseSaid(response, ""))
                if (utterance := self._utterances.get(response)) is not None:
                    self._playout.add_audio(utterance, audio, None)
                    self.pump()
            case ResponseDone(response, status):
                self.feed(ev.ResponseEnded(response, status))
                self._utterances.pop(response, None)
            case ToolCallDelta(call, malformed):
                self.feed(ev.ToolAsked(call, malformed is not None))
            case ToolCancelled(ids):
                self.feed(ev.ToolsForgotten(ids))
            case LlmUsage():
                self._used(event)
            case Expiring():
                pass

    def _guess_stop(self, profile: RealtimeProfile) -> None:
        """This vendor does not tell when the caller ceases to speak: at the last loud sound before its answer."""
        if self._spoke_at is not None and not profile.server_turns:
            self._stopped(self._loud_at)

    def _stopped(self, at_ms: int) -> None:
        began, self._spoke_at = self._spoke_at, None
        self.feed(ev.CallerStopped(at_ms, 0 if began is None else max(0, at_ms - began)))

    def _used(self, usage: LlmUsage) -> None:
        name, _, model = self._ref.partition("/")
        self._records.put(
            Usage(
                at=datetime.now(UTC),
                provider=name,
                model=model,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_tokens=usage.cached_tokens,
            )
        )
