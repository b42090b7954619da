from __future__ import annotations

import getpass
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from emotion_edge.errors import SinkError
from emotion_edge.model.labels import EMOTIONS
from emotion_edge.sinks import mqtt, open_sinks
from emotion_edge.sinks.aggregate import AggregateSettings
from emotion_edge.sinks.mqtt import MqttSettings, MqttSink
from emotion_edge.values import Box

paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")


def mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Broker:
    """A real Mosquitto on a port of its own, that remembers over a restart."""

    def __init__(self, folder: Path, extra: str = "allow_anonymous true\n") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\n{extra}"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 0\n"
            f"user {getpass.getuser()}\n"  # started by root it would change to one without a right
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [mosquitto() or "", "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.stop()

    def freeze(self, on: bool) -> None:
        """Keep the connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)


class Listener:
    """Another client of the broker, with a session that outlives a restart."""

    def __init__(self, broker: Broker) -> None:
        self.messages: list[tuple[str, str]] = []
        self.retained: dict[str, str] = {}
        self._subscribed = threading.Event()
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self._subscribed.wait(30)

    def _take(self, _client, _data, message) -> None:
        text = message.payload.decode()
        self.messages.append((message.topic, text))
        self.retained[message.topic] = text

    def on(self, topic: str) -> list[str]:
        return [text for where, text in list(self.messages) if where == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    if mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def listener(broker):
    listener = Listener(broker)
    yield listener
    listener.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(mqtt, "_RECONNECT_S", (1, 1))


def settings(broker: Broker, **others) -> MqttSettings:
    others = {"topic": "kiosk/hall", "reconnect_spread_s": 0, **others}
    return MqttSettings(host="127.0.0.1", port=broker.port, **others)


def test_states_availability_and_the_largest_face(
    broker, listener, observation, face, until
) -> None:
    with MqttSink(settings(broker), EMOTIONS) as sink:
        small, large = face("sad", 0.6, 1), face("happy", 0.91, 2, Box(0, 0, 40, 40))
        sink.write(observation(0, (small, large)))
        until(lambda: "kiosk/hall/confidence" in listener.retained)
        state = listener.retained
        assert state["kiosk/hall/status"] == state["kiosk/hall/camera"] == "online"
        assert state["kiosk/hall/faces"] == "2"
        assert (state["kiosk/hall/label"], state["kiosk/hall/confidence"]) == ("happy", "91")
        assert json.loads(state["kiosk/hall/state"])["faces"][1]["label"] == "happy"
        sink.write(observation(1, (), at_s=time.monotonic() + 1))
        until(lambda: state["kiosk/hall/label"] == "none" and state["kiosk/hall/faces"] == "0")
    until(lambda: listener.retained["kiosk/hall/status"] == "stopped")
    # All of them are retained: a later client receives the last state.
    late = Listener(broker)
    until(lambda: late.retained.get("kiosk/hall/label") == "none")
    late.close()


def test_published_on_change_and_at_limited_rates(
    broker, listener, observation, face, until
) -> None:
    with MqttSink(settings(broker, interval_s=5, change_interval_s=1), EMOTIONS) as sink:
        until(lambda: sink._ready)
        for tenth in range(100):  # ten seconds that flicker from frame to frame
            sink.write(observation(tenth, (face(EMOTIONS[tenth % 2]),), at_s=tenth / 10))
        for tenth in range(100, 201):  # ten that are steady
            sink.write(observation(tenth, (face("happy"),), at_s=tenth / 10))
    until(lambda: listener.retained.get("kiosk/hall/status") == "stopped")
    frames = [json.loads(text)["frame"] for text in listener.on("kiosk/hall/state")]
    # Once a second, at the first frame that differs from what was last published.
    assert [frame for frame in frames if frame < 100] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert [frame for frame in frames if frame >= 100] == [109, 159]
    assert len(listener.on("kiosk/hall/faces")) == 1  # it never changed


def discovered(listener: Listener) -> dict[str, dict]:
    """Each entity's configuration by its unique_id, as Home Assistant would see it."""
    entities: dict[str, dict] = {}
    for topic, text in list(listener.retained.items()):
        if not topic.startswith("homeassistant/") or not text:
            continue
        config = json.loads(text)
        assert {"device", "origin"} <= set(config)
        shared = {key: config[key] for key in ("device", "origin")}
        if topic.startswith("homeassistant/device/"):
            # schemas.py of Home Assistant's MQTT integration
            assert set(config) == {"device", "origin", "components", "qos"}
            for component in config["components"].values():
                platform = component.pop("platform")
                entities[component["unique_id"]] = {**component, **shared, "platform": platform}
        else:
            platform = topic.split("/")[1]
            entities[config["unique_id"]] = {**config, "platform": platform}
    return entities


# The options of Home Assistant's MQTT integration that we use, by platform.
ALLOWED = {"device", "origin", "unique_id", "name", "platform", "state_topic", "value_template"}
ALLOWED |= {"device_class", "entity_category", "availability", "availability_mode", "icon"}
ALLOWED_ON = {
    "sensor": ALLOWED | {"options", "state_class", "unit_of_measurement"},
    "binary_sensor": ALLOWED | {"payload_on", "payload_off"},
}


@pytest.mark.parametrize("form", ["device", "entities"])
def test_home_assistant_finds_the_sensors_by_itself(
    form, broker, listener, observation, until
) -> None:
    topics = {
        "device": {"homeassistant/device/kiosk_hall/config"},
        "entities": {
            "homeassistant/binary_sensor/kiosk_hall/camera/config",
            "homeassistant/binary_sensor/kiosk_hall/presence/config",
            "homeassistant/sensor/kiosk_hall/confidence/config",
            "homeassistant/sensor/kiosk_hall/faces/config",
            "homeassistant/sensor/kiosk_hall/label/config",
            "homeassistant/sensor/kiosk_hall/status/config",
        },
    }[form]
    page = "http://hall.local:8080"
    more = {"device": "Hall kiosk", "discovery_form": form, "configuration_url": page}
    with MqttSink(settings(broker, **more), EMOTIONS) as sink:
        sink.write(observation(0))
        until(lambda: "kiosk/hall/confidence" in listener.retained)
        until(lambda: topics <= set(listener.retained))
        assert {t for t in listener.retained if t.startswith("homeassistant/")} == topics
        entities = discovered(listener)
        assert {name.removeprefix("kiosk_hall_") for name in entities} == {
            "status",
            "camera",
            "presence",
            "confidence",
            "faces",
            "label",
        }
        for config in entities.values():
            assert set(config) <= ALLOWED_ON[config["platform"]]
            assert config["state_topic"] in listener.retained
            for place in config.get("availability", ()):
                assert place["topic"] in listener.retained
            assert config["device"]["name"] == "Hall kiosk"
            assert config["device"]["configuration_url"] == page
        emotion = entities["kiosk_hall_label"]
        assert emotion["device_class"] == "enum"
        assert "state_class" not in emotion  # Home Assistant refuses both together
        assert set(emotion["options"]) == {*EMOTIONS, "unsure", "none"}
        # Home Assistant starts again, without its memory.
        topic = min(topics)
        before = len(listener.on(topic))
        listener.client.publish("homeassistant/status", "online", qos=1)
        until(lambda: len(listener.on(topic)) == before + 1)


def test_nobody_there_is_no_measurement(broker, listener, observation, until) -> None:
    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0, ()))
        until(lambda: listener.retained.get("kiosk/hall/confidence") == "None")
    assert listener.on("kiosk/hall/confidence") == ["None"]


def retained(broker: Broker, until) -> dict[str, str]:
    """What the broker keeps for a client that comes later."""
    late = Listener(broker)
    late.client.publish("over", "", qos=1)
    until(lambda: late.on("over"))
    late.close()
    return {topic: text for topic, text in late.retained.items() if text}


def test_aggregate_clears_what_a_plain_run_left_on_the_broker(
    broker, observation, face, until
) -> None:
    with MqttSink(settings(broker, discovery_form="entities"), EMOTIONS) as sink:
        sink.write(observation(0, (face("sad"),)))
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
    before = retained(broker, until)
    assert json.loads(before["kiosk/hall/state"])["faces"]
    assert "homeassistant/sensor/kiosk_hall/label/config" in before
    with open_sinks([settings(broker)], aggregate=AggregateSettings(period_s=10)) as sinks:
        for second in range(25):
            sinks.write(observation(second, (face("sad"),), at_s=second))
        until(lambda: "kiosk/hall/aggregate" in retained(broker, until))
    after = retained(broker, until)
    assert set(after) == {
        "kiosk/hall/status",
        "kiosk/hall/camera",
        "kiosk/hall/aggregate",
        "homeassistant/device/kiosk_hall/config",
    }
    assert "kiosk/hall/label" not in after["homeassistant/device/kiosk_hall/config"]
    # And back: a count of strangers is not kept for a configuration that publishes none.
    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0, (face("happy"),)))
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
    assert "kiosk/hall/aggregate" not in retained(broker, until)


def test_an_entity_that_a_device_description_no_longer_has_is_removed(broker, until) -> None:
    """Home Assistant removes a component only when it is listed with its platform alone."""

    def components(labels: list[str], *, aggregate: bool) -> dict[str, dict[str, object]]:
        with MqttSink(settings(broker), labels, aggregate=aggregate) as sink:
            until(lambda: sink._ready and sink._acknowledged == sink._sent)
        text = retained(broker, until)["homeassistant/device/kiosk_hall/config"]
        found: dict[str, dict[str, object]] = json.loads(text)["components"]
        return found

    components(EMOTIONS, aggregate=False)
    counts = components(["bored"], aggregate=True)
    assert counts["label"] == counts["confidence"] == {"platform": "sensor"}
    assert counts["presence"] == {"platform": "binary_sensor"}
    assert counts["people_bored"]["name"] == "People bored"
    again = components(EMOTIONS, aggregate=True)
    assert again["people_bored"] == {"platform": "sensor"}
    assert "label" not in again  # removed already


def test_entries_of_another_model_and_of_a_discovery_now_off_are_cleared(
    broker, observation, until
) -> None:
    with MqttSink(settings(broker, discovery_form="entities"), ["bored"], aggregate=True) as sink:
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
    other = Listener(broker)
    kept = "homeassistant/sensor/another_device/label/config"
    other.client.publish(kept, "{}", qos=1, retain=True)
    until(lambda: kept in other.retained)
    other.close()
    assert "homeassistant/sensor/kiosk_hall/people_bored/config" in retained(broker, until)
    with MqttSink(settings(broker), EMOTIONS, aggregate=True) as sink:
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
    there = {topic for topic in retained(broker, until) if topic.startswith("homeassistant")}
    assert there == {kept, "homeassistant/device/kiosk_hall/config"}
    with MqttSink(settings(broker, discovery=""), EMOTIONS) as sink:
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
    there = {topic for topic in retained(broker, until) if topic.startswith("homeassistant")}
    assert there == {kept}


def test_ended_on_purpose_is_not_the_same_as_dead(broker, listener, observation, until) -> None:
    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0))
        until(lambda: "homeassistant/device/kiosk_hall/config" in listener.retained)
    until(lambda: listener.retained["kiosk/hall/status"] == "stopped")
    entities = discovered(listener)
    assert set(entities["kiosk_hall_status"]["options"]) == {"online", "stopped", "offline"}
    (alive, _) = entities["kiosk_hall_label"]["availability"]
    assert alive["value_template"] == "{{ 'online' if value == 'online' else 'offline' }}"


def test_a_password_from_systemd(broker, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert mqtt._password(MqttSettings(username="kiosk")) is None
    (tmp_path / "emotion-edge.mqtt-password").write_text("secret\n")
    assert mqtt._password(MqttSettings(username="kiosk")) == "secret"
    assert mqtt._password(MqttSettings(username="kiosk", password="mine")) == "mine"


def test_discovery_can_be_switched_off(broker, listener, observation, until) -> None:
    with MqttSink(settings(broker, discovery=""), EMOTIONS) as sink:
        sink.write(observation(0))
        until(lambda: "kiosk/hall/label" in listener.retained)
    assert not [
        topic for topic, text in listener.retained.items() if "homeassistant" in topic and text
    ]


def test_a_lost_camera_makes_the_sensors_unavailable(
    broker, listener, observation, event, until
) -> None:
    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0))
        until(lambda: listener.retained.get("kiosk/hall/camera") == "online")
        sink.event(event("camera.lost", "no frame for 5 s"))
        until(lambda: listener.retained.get("kiosk/hall/camera") == "offline")
        (text,) = until(lambda: listener.on("kiosk/hall/event"))
        assert json.loads(text)["message"] == "no frame for 5 s"
        sink.write(observation(1))
        until(lambda: listener.retained.get("kiosk/hall/camera") == "online")


def test_the_last_will_tells_of_a_death(broker, listener, observation, until, tmp_path) -> None:
    sink = MqttSink(settings(broker), EMOTIONS)
    sink.__enter__()
    sink.write(observation(0))
    until(lambda: listener.retained.get("kiosk/hall/status") == "online")
    sink._client._sock.shutdown(socket.SHUT_RDWR)  # no good-bye
    until(lambda: "offline" in listener.on("kiosk/hall/status"))
    until(lambda: listener.retained.get("kiosk/hall/status") == "online")  # and it comes back
    sink.__exit__(None, None, None)


def test_a_broker_stopped_and_started_in_the_middle_loses_nothing(
    broker, listener, observation, face, event, until
) -> None:
    told = 0

    def tell(sink: MqttSink, events: int) -> None:
        nonlocal told
        for _ in range(events):
            sink.event(event("test.number", str(told)))
            told += 1

    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0, (face("happy"),)))
        until(lambda: sink._ready)
        tell(sink, 200)
        broker.stop()  # with some of these under way
        tell(sink, 200)
        until(lambda: not sink._connected)
        tell(sink, 200)
        sink.write(observation(1, (face("sad"),), at_s=time.monotonic() + 1))
        sink.write(observation(2, (face("fear"),), at_s=time.monotonic() + 2))
        broker.start()
        tell(sink, 200)
        until(lambda: sink._ready)
        tell(sink, 200)
        until(lambda: len(set(listener.on("kiosk/hall/event"))) >= told)
        until(lambda: listener.retained["kiosk/hall/label"] == "fear")
        assert listener.retained["kiosk/hall/status"] == "online"
    numbers = {int(json.loads(text)["message"]) for text in listener.on("kiosk/hall/event")}
    assert numbers == set(range(told))
    assert sink.dropped == 0
    # Of the states only the newest waited, and none came late.
    assert "sad" not in listener.on("kiosk/hall/label")
    assert listener.retained["kiosk/hall/label"] == "fear"


def test_an_old_state_under_way_does_not_overtake_the_present(
    broker, observation, face, until
) -> None:
    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0, (face("happy"),)))
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
        broker.freeze(True)
        sink.write(observation(1, (face("sad"),), at_s=time.monotonic() + 1))
        assert sink._acknowledged < sink._sent  # sad is under way
        broker.kill()
        until(lambda: not sink._connected)
        sink.write(observation(2, (face("fear"),), at_s=time.monotonic() + 2))
        broker.start()
        until(lambda: sink._ready and sink._acknowledged == sink._sent)
    late = Listener(broker)
    assert until(lambda: late.retained.get("kiosk/hall/label")) == "fear"
    late.close()


def test_a_queue_has_an_end_and_counts_what_is_above_it(broker, observation, event, until) -> None:
    broker.stop()
    with MqttSink(settings(broker, queue=50), EMOTIONS) as sink:
        for number in range(80):
            sink.event(event("test.number", str(number)))
        assert sink.dropped == 30
        broker.start()
        until(lambda: sink._acknowledged >= 50)
    assert sink.dropped == 30


def test_the_broker_may_come_after_us(broker, observation, until) -> None:
    broker.stop()
    with MqttSink(settings(broker), EMOTIONS) as sink:
        sink.write(observation(0))
        broker.start()
        listener = Listener(broker)
        until(lambda: listener.retained.get("kiosk/hall/label") == "happy")
        listener.close()


def test_an_absent_broker_is_reported_once_and_closing_is_quick(
    monkeypatch, observation, until, tmp_path
) -> None:
    monkeypatch.setattr(mqtt, "_GRACE_S", 0.0)
    with socket.socket() as unused:  # bound, and not listening
        unused.bind(("127.0.0.1", 0))
        heard = []
        away = MqttSettings(host="127.0.0.1", port=unused.getsockname()[1])
        with open_sinks([away], on_event=heard.append) as sinks:
            for index in range(20):
                sinks.write(observation(index))
            (state,) = until(lambda: [state for state in sinks.states() if state.failing])
            assert "does not answer: check the address and that the broker runs" in state.failing
            start = time.monotonic()
        assert time.monotonic() - start < 2.0  # what SIGTERM promises
    assert [each.kind for each in heard].count("sink.failed") == 1


def test_closing_is_quick_when_the_broker_hangs(broker, observation, event, until) -> None:
    with MqttSink(settings(broker), EMOTIONS) as sink:
        until(lambda: sink._ready and sink._acknowledged >= sink._sent)
        broker.freeze(True)
        sink.event(event())
        start = time.monotonic()
        with pytest.raises(SinkError, match=r"did not acknowledge \d+ messages"):
            sink.__exit__(None, None, None)
        assert time.monotonic() - start < 2.0
    assert sink.dropped >= 1
    broker.freeze(False)


def test_a_wrong_password_is_named(tmp_path, observation, until, monkeypatch) -> None:
    if mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    monkeypatch.setattr(mqtt, "_GRACE_S", 0.0)
    broker = Broker(tmp_path, "allow_anonymous false\n")
    broker.start()
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    sink = MqttSink(settings(broker, username="kiosk", password_file=secret), EMOTIONS)
    with sink:
        until(lambda: "Not authorized" in sink.trouble)
        assert "check username and password" in sink.trouble
    broker.stop()


def test_a_password_file_that_is_not_there(tmp_path) -> None:
    away = MqttSettings(username="kiosk", password_file=tmp_path / "absent")
    with pytest.raises(SinkError, match="cannot read the MQTT password"), MqttSink(away, EMOTIONS):
        pass


def test_aggregate_mode_publishes_counts_only(broker, listener, observation, face, until) -> None:
    with open_sinks([settings(broker)], aggregate=AggregateSettings(period_s=10)) as sinks:
        for second in range(25):
            sinks.write(observation(second, (face("sad"),), at_s=second))
        until(lambda: len(listener.on("kiosk/hall/aggregate")) >= 1)
    until(lambda: listener.retained.get("kiosk/hall/status") == "stopped")
    count = json.loads(listener.retained["kiosk/hall/aggregate"])["details"]
    assert count["labels"] == {"sad": 1}
    ours = {topic.removeprefix("kiosk/hall/") for topic, text in listener.retained.items() if text}
    assert {topic for topic in ours if "/" not in topic} == {"status", "camera", "aggregate"}
    assert discovered(listener)["kiosk_hall_people"]["state_topic"] == "kiosk/hall/aggregate"


def described(listener: Listener) -> dict[str, dict[str, object]]:
    """The entities of the device's description."""
    text = listener.retained["homeassistant/device/kiosk_hall/config"]
    found: dict[str, dict[str, object]] = json.loads(text)["components"]
    return found


def test_a_visit_has_its_topic_and_its_entity(broker, listener, event, until) -> None:
    with MqttSink(settings(broker), EMOTIONS, visits=True) as sink:
        sink.event(event("visit", label="happy", dwell_s=3.0))
        until(lambda: listener.on("kiosk/hall/visit"))
    (made,) = listener.on("kiosk/hall/visit")
    assert json.loads(made)["type"] == "visit" and "kiosk/hall/event" not in listener.retained
    entity = described(listener)["visit"]
    assert (entity["platform"], entity["state_topic"]) == ("event", "kiosk/hall/visit")
    assert entity["event_types"] == ["visit"]


def test_a_withheld_count_is_unknown_and_not_an_error(broker, listener, until) -> None:
    jinja2 = pytest.importorskip("jinja2", reason="Jinja is not installed")
    with MqttSink(settings(broker), EMOTIONS, aggregate=True, visits=True):
        until(lambda: "homeassistant/device/kiosk_hall/config" in listener.retained)
    withheld = {"details": {"seconds": 60, "withheld": True}}
    counted = {"details": {"people": 4, "labels": {"happy": 3}, "visits": {"withheld": True}}}
    shown = {}
    for name in ("people", "people_happy", "people_sad", "visits"):
        template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(
            described(listener)[name]["value_template"]
        )
        shown[name] = [template.render(value_json=each) for each in (withheld, counted)]
    assert shown == {
        "people": ["None", "4"],
        "people_happy": ["None", "3"],
        "people_sad": ["None", "0"],
        "visits": ["None", "None"],
    }


class Run:
    """What a sink may do to the run, noted."""

    def __init__(self) -> None:
        self.paused = False
        self.obeyed: list[str] = []

    def obey(self, command: str) -> bool:
        self.obeyed.append(command)
        return command in ("pause", "resume", "reload")


def test_commands_arrive_but_not_retained_ones(broker, listener, until) -> None:
    run = Run()
    listener.client.publish("kiosk/hall/command", "reload", qos=1, retain=True).wait_for_publish()
    with MqttSink(settings(broker), EMOTIONS, commands=run) as sink:
        until(lambda: sink._ready)
        for command in ("pause", " Resume\n"):
            listener.client.publish("kiosk/hall/command", command, qos=1)
        until(lambda: len(run.obeyed) == 2)
    assert sorted(run.obeyed) == ["pause", "resume"]


def test_a_switch_shows_the_pause_and_nothing_is_measured(
    broker, listener, observation, event, until
) -> None:
    state = listener.retained
    with MqttSink(settings(broker), EMOTIONS, commands=Run()) as sink:
        sink.write(observation(0))
        until(lambda: state.get("kiosk/hall/running") == "ON")
        sink.event(event("camera.paused", "the camera is closed on request"))
        shown = {"camera": "offline", "running": "OFF", "state": "", "faces": "0", "label": "none"}
        until(lambda: {key: state.get(f"kiosk/hall/{key}") for key in shown} == shown)
        sink.event(event("camera.resumed", "resumed"))
        sink.write(observation(1))
        until(lambda: state["kiosk/hall/camera"] == "online" and state["kiosk/hall/state"])
        assert state["kiosk/hall/running"] == "ON"
    switch = described(listener)["running"]
    assert (switch["command_topic"], switch["payload_off"]) == ("kiosk/hall/command", "pause")
    assert (switch["state_topic"], switch["state_off"]) == ("kiosk/hall/running", "OFF")


def test_commands_can_be_switched_off(broker, listener, until) -> None:
    run = Run()
    with MqttSink(settings(broker, commands=False), EMOTIONS, commands=run) as sink:
        until(lambda: sink._ready)
        listener.client.publish("kiosk/hall/command", "pause", qos=1).wait_for_publish()
        listener.client.publish("homeassistant/status", "online", qos=1).wait_for_publish()
        until(lambda: len(listener.on("homeassistant/device/kiosk_hall/config")) > 1)
    assert run.obeyed == [] and "running" not in described(listener)


def test_connections_of_many_devices_come_back_spread_out(broker) -> None:
    """Each draws a first pause of its own, and a new one after every loss."""

    class Client:
        def __init__(self) -> None:
            self.pauses: list[tuple[float, float]] = []

        def reconnect_delay_set(self, first: float, longest: float) -> None:
            self.pauses.append((first, longest))

    client = Client()
    for _ in range(200):
        MqttSink(settings(broker, reconnect_spread_s=60), EMOTIONS)._on_disconnect(client)
    first = [pause for pause, _ in client.pauses]
    assert all(1 <= pause <= 61 and longest >= pause for pause, longest in client.pauses)
    assert all(sum(10 * k <= pause < 10 * k + 10 for pause in first) < 100 for k in range(7))


def test_a_lost_connection_draws_its_pause_from_the_settings(broker, until) -> None:
    with MqttSink(settings(broker, reconnect_spread_s=3), EMOTIONS) as sink:
        until(lambda: sink.connections == 1)
        before = sink._client._reconnect_min_delay
        broker.stop()
        until(lambda: sink._client._reconnect_min_delay != before)
        broker.start()
        until(lambda: sink.connections == 2)


_EVERY = {"unique_id", "name", "icon", "availability", "availability_mode", "entity_category"}
HOME_ASSISTANT = {
    # platform: (keys it requires, further keys of ours that its schema has). From the schemas of
    # Home Assistant 2025.4 (homeassistant/components/mqtt), which ignore other keys silently.
    "sensor": (
        {"state_topic"},
        {"device_class", "options", "state_class", "unit_of_measurement", "value_template"},
    ),
    "binary_sensor": (
        {"state_topic"},
        {"device_class", "payload_on", "payload_off", "value_template"},
    ),
    "switch": (
        {"command_topic"},
        {"state_topic", "state_on", "state_off", "payload_on", "payload_off"},
    ),
    "button": ({"command_topic"}, {"payload_press"}),
    "event": ({"state_topic", "event_types"}, {"value_template"}),
}


@pytest.mark.parametrize("aggregate", [False, True])
def test_entities_follow_home_assistants_rules(aggregate: bool) -> None:
    sink = MqttSink(MqttSettings(), EMOTIONS, aggregate=aggregate, visits=True, commands=Run())
    names = [key for _, key in sink._entities()]
    assert len(set(names)) == len(names)
    for (platform, _), entity in sink._entities().items():
        required, more = HOME_ASSISTANT[platform]
        assert required <= set(entity) <= required | more | _EVERY
        assert entity.get("entity_category") in (None, "config", "diagnostic")
        assert entity.get("state_class") in (None, "measurement")
        if entity.get("device_class") == "enum":  # which excludes the two others
            assert entity["options"] and not {"state_class", "unit_of_measurement"} & set(entity)
        for source in entity.get("availability", []):
            assert set(source) <= {"topic", "value_template"} and source["topic"]
