"""Publishes to an MQTT broker, and describes its entities to Home Assistant (extra ``[mqtt]``).

Topics, below the base (``emotion-edge/HOSTNAME``), all QoS 1::

    status      online; stopped (ended on purpose); offline (the last will: it died); retained
    camera      online / offline (retained); offline while paused
    running     ON / OFF: whether the camera is meant to film (retained)
    command     pause, resume and reload are taken from here; retained messages are ignored
    state       the newest record, as emotion_edge.records describes it (retained)
    faces       how many (retained)
    label       of the largest face, or "none" (retained)
    confidence  its probability in percent, or "None" without a face, which Home Assistant takes
                for "unknown" and keeps out of its statistics (retained)
    event       each event's record
    visit       the record of each visit that has ended, if visits are followed
    aggregate   the newest count (retained); in aggregate mode, instead of the four states above

On each connection, retained topics that this configuration does not publish are cleared: the
single-face topics in aggregate mode, and discovery entries of another form or another model.
Home Assistant keeps an entity that its device's description merely omits, so an entity of the
earlier description is listed with its platform alone, which removes it.

Discovery (Home Assistant's "MQTT discovery"): one retained description of the device with all its
entities (Home Assistant 2024.11 and later), or one for each entity; published again when Home
Assistant announces its start. Entities are unavailable while the device or its camera is.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from emotion_edge.errors import MissingExtra, SinkError, UsageError
from emotion_edge.model.labels import UNSURE
from emotion_edge.records import event_record, observation_record, to_json
from emotion_edge.settings import key
from emotion_edge.sinks import Commands, Content, Kept, Run, Sink, SinkSettings
from emotion_edge.sinks.address import from_address
from emotion_edge.sinks.aggregate import AGGREGATE
from emotion_edge.sinks.camera_state import PAUSED, camera_state
from emotion_edge.values import VISIT, Event, Observation
from emotion_edge.version import __version__

_NONE = "none"  # the label where there is no face
_GRACE_S = 5.0  # without a broker before it counts as trouble: a restart takes less
_FLUSH_S = 1.0  # for the last acknowledgements
_STOP_S = 0.3  # for paho's thread to end
_RECONNECT_S = (1, 30)  # the first and the longest pause
_QUEUE_FULL = 15  # paho's MQTT_ERR_QUEUE_SIZE
CREDENTIAL = "emotion-edge.mqtt-password"
_SINGLE_FACES = ("state", "faces", "label", "confidence")
_RETAINED = (*_SINGLE_FACES, "aggregate")  # status and camera are always published
_UNKNOWN = "None"  # Home Assistant's payload for "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings(SinkSettings):
    """An MQTT broker, with Home Assistant discovery (extra ``[mqtt]``)."""

    help: ClassVar[str] = "publish to an MQTT broker; localhost:1883"
    metavar: ClassVar[str] = "HOST[:PORT]"

    host: str = key("localhost", "the broker's address.", filled=True)
    port: int = key(1883, "the broker's port; 8883 is usual with `tls`.", ge=1, le=65535)
    username: str = key("", "empty for none.")
    password: str = key(
        "",
        "empty for none. Better: systemd's credential `emotion-edge.mqtt-password`, or "
        "`password_file`.",
        secret=True,
    )
    password_file: Path | None = key(None, "a file whose first line is the password.")
    tls: bool = key(False, "encrypt, and verify the broker.")
    ca_file: Path | None = key(
        None, "certificates to verify the broker with; unset: the system's authorities."
    )
    topic: str = key(
        "", "base of all topics; empty for `emotion-edge/HOSTNAME`. Unique per device."
    )
    device: str = key("", "name shown in Home Assistant; empty for `Emotion HOSTNAME`.")
    discovery: str = key(
        "homeassistant", "Home Assistant's discovery prefix; empty switches discovery off."
    )
    discovery_form: Literal["device", "entities"] = key(
        "device",
        "`device` (one description of everything; Home Assistant 2024.11 and later) or `entities` "
        "(one for each entity).",
    )
    commands: bool = key(
        True,
        "take `pause`, `resume` and `reload` from the topic `command`: from all who may publish "
        "there.",
    )
    configuration_url: str = key(
        "", "address that Home Assistant links to from the device, such as the page's."
    )
    interval_s: float = key(5.0, "seconds between two states while nothing changes.", gt=0, le=1e6)
    change_interval_s: float = key(
        0.2, "shortest time between two states, however much changes, in seconds.", ge=0, le=1e6
    )
    queue: int = key(
        1000,
        "messages kept while the broker is away; newer ones are dropped and counted.",
        ge=1,
        le=65535,
    )
    reconnect_spread_s: float = key(
        5.0,
        "a lost connection is tried again after 1 s and a random part of this, so that the "
        "devices of a restarted broker do not all come back in the same second.",
        ge=0,
        le=3600,
    )
    keepalive_s: int = key(30, "seconds after which a silent connection is probed.", ge=1, le=65535)

    def check(self) -> None:
        """A topic to publish to has no wildcards, and the link is a web address."""
        if self.configuration_url and not self.configuration_url.startswith(
            ("http://", "https://")
        ):
            raise UsageError(
                f"configuration_url is {self.configuration_url!r}: "
                "use an address that starts with http:// or https://"
            )
        for name, topic in (("topic", self.topic), ("discovery", self.discovery)):
            if any(sign in topic for sign in "+#\0"):
                raise UsageError(f"{name} is {topic!r}: a topic holds no + and no #")

    def receipt(self, content: Content) -> list[Kept]:
        """Records, at the broker."""
        how = "encrypted" if self.tls else "not encrypted"
        return [
            Kept(
                str(content),
                f"the MQTT broker {self.host}:{self.port} ({how}) and its subscribers",
                "the newest at the broker until the next one, and as long as a subscriber keeps it",
                leaves=True,
            )
        ]

    @classmethod
    def from_flag(cls, text: str) -> dict[str, str]:
        """Host, or host and port."""
        return from_address(text, port_alone=False)

    def open(self, run: Run) -> MqttSink:
        """Nothing is opened yet."""
        return MqttSink(
            self,
            run.labels,
            aggregate=run.aggregate,
            visits=run.visits,
            commands=run.commands,
        )


class MqttSink(Sink):
    """Publishes on change, and at a slow rate while nothing changes.

    paho's own thread connects, reconnects, and repeats what the broker has not acknowledged.
    While the broker is away, events are queued, up to ``queue`` of them; of the states only the
    newest is kept.
    """

    name = "mqtt"
    dropped = 0

    def __init__(
        self,
        settings: MqttSettings,
        labels: Sequence[str],
        *,
        aggregate: bool = False,
        visits: bool = False,
        commands: Commands | None = None,
    ) -> None:
        """labels: the classifier's. aggregate: whether counts are published instead of faces.

        visits: whether visits are followed. commands: pauses, resumes and reloads the run.
        """
        host = socket.gethostname()
        self.name = f"mqtt {settings.host}:{settings.port}"
        self._settings = settings
        self._labels = tuple(dict.fromkeys((*labels, UNSURE)))
        self._aggregate = aggregate
        self._visits = visits
        self._commands = commands if settings.commands else None
        self._base = (settings.topic or f"emotion-edge/{host}").strip("/")
        self._device = settings.device or f"Emotion {host}"
        # Where discovery is switched off, entries of an earlier configuration are cleared.
        self._prefix = settings.discovery or "homeassistant"
        self._client: Any = None
        # paho calls back with its own locks held, so the counters have a lock of their own that
        # is never held while paho is called.
        self._lock = threading.Lock()
        self._counting = threading.Condition()
        self._sent = 0
        self._acknowledged = 0
        self._connections = 0
        self._connected = False
        self._ready = False  # connected, and nothing older is on its way
        self._away_since = time.monotonic()
        self._refusal = ""
        # Retained payloads by topic, as they should be; an empty one clears the topic.
        ours = ("aggregate",) if aggregate else _SINGLE_FACES
        self._wanted = {"status": "online"}
        if commands is not None:
            self._wanted["running"] = "OFF" if commands.paused else "ON"
        self._wanted |= {topic: "" for topic in _RETAINED if topic not in ours}
        self._there: dict[str, str] = {}  # as the broker has them
        self._shown: tuple[tuple[int | None, str], ...] | None = None
        self._shown_ns = float("-inf")

    @property
    def trouble(self) -> str:
        """Why the broker has been away for more than a moment; empty while it is connected."""
        if self._connected or time.monotonic() - self._away_since < _GRACE_S:
            return ""
        if self._refusal:
            return f"{self.name} refuses us: {self._refusal}: check username and password"
        return f"{self.name} does not answer: check the address and that the broker runs"

    @property
    def connections(self) -> int:
        """How often it has connected."""
        return self._connections

    @property
    def unacknowledged(self) -> int:
        """Messages that the broker has not confirmed; paho repeats them after a reconnection."""
        return self._sent - self._acknowledged

    def __enter__(self) -> Self:
        """Begin to connect; it does not wait for the broker, which may come later.

        Raises MissingExtra, or SinkError when a password or certificate file cannot be read.
        """
        try:
            from paho.mqtt import client as paho
        except ImportError as error:
            raise MissingExtra("MQTT", "mqtt", "paho.mqtt") from error
        settings = self._settings
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=_identifier(self._base)[-64:]
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.max_queued_messages_set(settings.queue)
        self._spread(client)
        client.will_set(f"{self._base}/status", "offline", qos=1, retain=True)
        if settings.username:
            client.username_pw_set(settings.username, _password(settings))
        if settings.tls:
            try:
                client.tls_set(ca_certs=str(settings.ca_file) if settings.ca_file else None)
            except OSError as error:
                raise SinkError(
                    f"cannot use the certificates in {settings.ca_file}: {error}: check ca_file"
                ) from error
        if settings.discovery:
            self._wanted.update(self._discovery())
        self._away_since = time.monotonic()
        self._client = client
        client.connect_async(settings.host, settings.port, keepalive=settings.keepalive_s)
        client.loop_start()
        return self

    def write(self, observation: Observation) -> None:
        """Publish what changed, or everything when it is time."""
        now = observation.frame.captured_ns
        shown = tuple((face.track_id, face.label) for face in observation.faces)
        settings = self._settings
        pause = settings.interval_s if shown == self._shown else settings.change_interval_s
        with self._lock:
            self._wanted["camera"] = "online"
            if not self._aggregate and now - self._shown_ns >= pause * 1e9:
                self._wanted.update(_state(observation))
                self._shown, self._shown_ns = shown, now
        self._publish_wanted()

    def event(self, event: Event) -> None:
        """Publish one event."""
        record = to_json(event_record(event))
        state = camera_state(event)
        with self._lock:
            if event.kind == AGGREGATE:
                self._wanted["camera"] = "online"
                self._wanted["aggregate"] = record
            elif state is not None:
                self._wanted["camera"] = "online" if state == "ok" else "offline"
            if state == PAUSED:
                self._wanted["running"] = "OFF"
                if not self._aggregate:  # what was seen last is no longer seen
                    self._wanted |= _NOTHING
                self._shown_ns = float("-inf")
            elif event.kind == "camera.resumed":
                self._wanted["running"] = "ON"
        topic = VISIT if event.kind == VISIT else "event"
        if event.kind != AGGREGATE and not self._publish(topic, record, retain=False):
            self.dropped += 1
        self._publish_wanted()

    def __exit__(self, *error: object) -> None:
        """Publish that we stop, and wait up to a second for outstanding acknowledgements.

        Raises SinkError when messages were not acknowledged.
        """
        client = self._client
        if client is None:
            return
        if self._connected:
            with self._lock:
                self._wanted = {"status": "stopped"}
            self._publish("status", "stopped", retain=True)
            with self._counting:
                self._counting.wait_for(
                    lambda: self._acknowledged >= self._sent or not self._connected, _FLUSH_S
                )
        self._client = None
        client.disconnect()
        # Stopping joins paho's thread, which may be in a slow connect.
        stopper = threading.Thread(target=client.loop_stop, name="mqtt stop", daemon=True)
        stopper.start()
        stopper.join(_STOP_S)
        if lost := self._sent - self._acknowledged:
            self.dropped += lost
            raise SinkError(
                f"{self.name} did not acknowledge {lost} messages, which are lost: "
                "check that the broker runs"
            )

    def _publish_wanted(self) -> None:
        """Bring the retained topics up to date; while the broker is away, on its return."""
        with self._lock:
            if self._ready:
                self._publish_changes()

    def _publish_changes(self) -> None:
        # Clear first: Home Assistant refuses an entity that it already has from another entry.
        for topic, payload in sorted(self._wanted.items(), key=lambda item: item[1] != ""):
            if self._there.get(topic) != payload and self._publish(topic, payload, retain=True):
                self._there[topic] = payload

    def _publish(self, topic: str, payload: str, *, retain: bool) -> bool:
        """Hand one message to paho; False when its queue is full."""
        client = self._client
        if client is None:
            return False
        if not topic.startswith(f"{self._prefix}/"):
            topic = f"{self._base}/{topic}"
        with self._counting:
            self._sent += 1
        info = client.publish(topic, payload, qos=1, retain=retain)
        full: bool = info.rc == _QUEUE_FULL
        if full:
            with self._counting:
                self._sent -= 1
        return not full

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _more: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
            return
        me = _identifier(self._base)
        client.subscribe(
            [
                (f"{self._prefix}/status", 1),
                # Our own entries; QoS 0, so that all retained ones come before the next PUBACK.
                (f"{self._prefix}/device/{me}/config", 0),
                (f"{self._prefix}/+/{me}/+/config", 0),
                *([(f"{self._base}/command", 1)] if self._commands else []),
            ]
        )
        with self._counting:
            self._refusal = ""
            self._connected = True
            self._connections += 1
            catch_up = (self._connections, self._sent)
        # Not from here: paho repeats the old messages only after this, and a new state must not
        # be overtaken by an old one.
        threading.Thread(
            target=self._catch_up, args=catch_up, name="mqtt catch up", daemon=True
        ).start()

    def _catch_up(self, connection: int, sent: int) -> None:
        """Once the broker has everything that was under way, publish the present state."""
        if not self._acknowledged_in(connection, sent):
            return
        # The acknowledgement of this one follows the retained entries subscribed to before it.
        self._publish("status", "online", retain=True)
        if not self._acknowledged_in(connection, self._sent):
            return
        with self._lock:
            self._there = {"status": "online"}
            self._ready = self._client is not None
            if self._ready:
                self._publish_changes()

    def _acknowledged_in(self, connection: int, sent: int) -> bool:
        """Wait for so many acknowledgements; False when the connection ends before."""

        def over() -> bool:
            return not self._connected or self._connections != connection

        with self._counting:
            self._counting.wait_for(lambda: self._acknowledged >= sent or over())
            return not over()

    def _spread(self, client: Any) -> None:
        """Draw the first pause before the next connection; paho doubles it at each failure."""
        first, longest = _RECONNECT_S
        pause = first + random.uniform(0, self._settings.reconnect_spread_s)
        client.reconnect_delay_set(pause, max(pause, longest))

    def _on_disconnect(self, client: Any, *_: Any) -> None:
        self._spread(client)
        with self._counting:
            if self._connected:
                self._away_since = time.monotonic()
            self._connected = self._ready = False
            self._counting.notify_all()

    def _on_publish(self, *_: Any) -> None:
        with self._counting:
            self._acknowledged += 1
            self._counting.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        """A command, Home Assistant's start, or a discovery entry that the broker holds for us."""
        if message.topic == f"{self._base}/command":
            # A retained command would be carried out again at each connection.
            if self._commands is not None and not message.retain:
                threading.Thread(
                    target=self._commands.obey,
                    args=(message.payload.decode(errors="replace").strip().lower(),),
                    name="mqtt command",
                    daemon=True,
                ).start()
        elif message.topic != f"{self._prefix}/status":
            with self._lock:
                if not message.retain or not message.payload:
                    return
                if message.topic not in self._wanted:
                    self._wanted[message.topic] = ""
                elif message.topic.startswith(f"{self._prefix}/device/"):
                    wanted = self._wanted[message.topic]
                    self._wanted[message.topic] = _with_removals(wanted, message.payload)
        elif message.payload == b"online" and not message.retain and self._settings.discovery:
            with self._lock:
                self._there = {topic: text for topic, text in self._there.items() if not text}
            self._publish_wanted()

    def _discovery(self) -> dict[str, str]:
        """Home Assistant's description of our entities, by topic."""
        me = _identifier(self._base)
        device = {
            "identifiers": [me],
            "name": self._device,
            "manufacturer": "emotion-edge",
            "model": "Facial expression camera",
            "sw_version": __version__,
        }
        if self._settings.configuration_url:
            device["configuration_url"] = self._settings.configuration_url
        common = {"device": device, "origin": {"name": "emotion-edge", "sw_version": __version__}}
        entities = {
            (platform, key): {"unique_id": f"{me}_{key}", **entity}
            for (platform, key), entity in self._entities().items()
        }
        if self._settings.discovery_form == "device":
            components = {
                key: {"platform": platform, **entity}
                for (platform, key), entity in entities.items()
            }
            payload = to_json({**common, "components": components, "qos": 1})
            return {f"{self._prefix}/device/{me}/config": payload}
        return {
            f"{self._prefix}/{platform}/{me}/{key}/config": to_json({**common, **entity})
            for (platform, key), entity in entities.items()
        }

    def _entities(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Each entity's configuration, by its platform and its key."""
        base = self._base
        # A template: an availability payload that Home Assistant does not expect ("stopped")
        # would leave the entity available.
        alive = {
            "topic": f"{base}/status",
            "value_template": "{{ 'online' if value == 'online' else 'offline' }}",
        }
        seeing = {
            "availability": [alive, {"topic": f"{base}/camera"}],
            "availability_mode": "all",
        }
        entities: dict[tuple[str, str], dict[str, Any]] = {
            ("sensor", "status"): {
                "name": "Status",
                "icon": "mdi:power",
                "state_topic": f"{base}/status",
                "device_class": "enum",
                "options": ["online", "stopped", "offline"],
                "entity_category": "diagnostic",
            },
            ("binary_sensor", "camera"): {
                "name": "Camera",
                "state_topic": f"{base}/camera",
                "payload_on": "online",
                "payload_off": "offline",
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "availability": [alive],
            },
        }
        if self._commands is not None:
            command = {"command_topic": f"{base}/command", "availability": [alive]}
            entities["switch", "running"] = {
                "name": "Filming",
                "icon": "mdi:cctv",
                "state_topic": f"{base}/running",
                "state_on": "ON",
                "state_off": "OFF",
                "payload_on": "resume",
                "payload_off": "pause",
                **command,
            }
            entities["button", "reload"] = {
                "name": "Reload configuration",
                "icon": "mdi:reload",
                "payload_press": "reload",
                "entity_category": "config",
                **command,
            }
        if self._aggregate:
            count = {
                "state_topic": f"{base}/aggregate",
                "state_class": "measurement",
                "unit_of_measurement": "people",
                **seeing,
            }
            entities["sensor", "people"] = {
                "name": "People",
                "icon": "mdi:account-group",
                "value_template": _counted("people"),
                **count,
            }
            for label in self._labels:
                entities["sensor", f"people_{_identifier(label)}"] = {
                    "name": f"People {label}",
                    "icon": "mdi:emoticon-outline",
                    "value_template": _counted(f"labels.get({label!r}, 0)"),
                    **count,
                }
            if self._visits:
                entities["sensor", "visits"] = {
                    "name": "Visits",
                    "icon": "mdi:walk",
                    "value_template": _counted("get('visits', {'count': 0}).get('count')"),
                    **count,
                    "unit_of_measurement": "visits",
                }
            return entities
        if self._visits:
            entities["event", "visit"] = {
                "name": "Visit",
                "icon": "mdi:walk",
                "state_topic": f"{base}/visit",
                "event_types": [VISIT],
                # Home Assistant requires the type in the payload; the rest become attributes.
                "value_template": "{{ dict(value_json, event_type='visit') | to_json }}",
                **seeing,
            }
        entities["sensor", "label"] = {
            "name": "Emotion",
            "icon": "mdi:emoticon-outline",
            "state_topic": f"{base}/label",
            "device_class": "enum",
            "options": [*self._labels, _NONE],
            **seeing,
        }
        entities["sensor", "confidence"] = {
            "name": "Confidence",
            "icon": "mdi:gauge",
            "state_topic": f"{base}/confidence",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            **seeing,
        }
        entities["sensor", "faces"] = {
            "name": "Faces",
            "icon": "mdi:account-group",
            "state_topic": f"{base}/faces",
            "state_class": "measurement",
            "unit_of_measurement": "faces",
            **seeing,
        }
        entities["binary_sensor", "presence"] = {
            "name": "Presence",
            "device_class": "occupancy",
            "state_topic": f"{base}/faces",
            "value_template": "{{ 'ON' if value | int > 0 else 'OFF' }}",
            **seeing,
        }
        return entities


_NOTHING = {"state": "", "faces": "0", "label": _NONE, "confidence": _UNKNOWN}


def _counted(what: str) -> str:
    """The template of a count; a withheld one is unknown."""
    return (
        "{{ none if value_json.details.withheld is defined else value_json.details." + what + " }}"
    )


def _with_removals(wanted: str, earlier: bytes) -> str:
    """A device's description that also removes the entities only the earlier one has.

    An earlier description that is not ours to read is ignored.
    """
    try:
        before = json.loads(earlier)["components"]
        description = json.loads(wanted)
        removed = {
            name: {"platform": entity["platform"]}
            for name, entity in before.items()
            if name not in description["components"] and set(entity) != {"platform"}
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return wanted
    if not removed:
        return wanted
    description["components"] |= removed
    return to_json(description)


def _state(observation: Observation) -> dict[str, str]:
    """The retained payloads of an observation, by topic."""
    first = max(observation.faces, key=lambda face: face.box.area, default=None)
    return {
        "state": to_json(observation_record(observation)),
        "faces": str(len(observation.faces)),
        "label": first.label if first else _NONE,
        "confidence": str(round(100 * first.shown.confidence)) if first else _UNKNOWN,
    }


def _password(settings: MqttSettings) -> str | None:
    """From ``password_file``, else from systemd's credential, else from the configuration."""
    path = settings.password_file
    if path is None and not settings.password:
        credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / CREDENTIAL
        path = credential if credential.is_absolute() and credential.is_file() else None
    if path is None:
        return settings.password or None
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise SinkError(
            f"cannot read the MQTT password in {path}: {error}: check password_file"
        ) from error


def _identifier(text: str) -> str:
    """Letters, digits, ``_`` and ``-`` only, as Home Assistant requires in its topics."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)
