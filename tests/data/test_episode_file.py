"""Episode files: what is read equals what came over the wire; damage is found."""

import hashlib

import msgspec
import numpy as np
import pytest

from takeover.data.episode_build import DEMO
from takeover.data.episode_file import EpisodeReader, open_episode, read_events, read_records, verify_file, write_episode
from takeover.data.episode_read import read_block
from takeover.data.episode_schema import EpisodeError, gather, intervention_labels, is_held, is_human
from takeover.data.hdf5_image import DamagedFile, seal
from takeover.data.schema import ControlMode, EpisodeKind, Event, Outcome, PolicyImage, Source, Step


def write(workspace, records):
    episode = gather(records)
    return episode, write_episode(workspace, episode)[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"holds": (1, 20), "frames": True},
        {"sim_state": False, "events": False, "takeovers": ()},
        {"steps": 1, "outcome": Outcome.FAILURE, "takeovers": ()},
        {"steps": 0, "takeovers": (), "outcome": Outcome.ABORTED},
        {"holds": (0,), "kind": EpisodeKind.DEMONSTRATION},
    ],
)
def test_records_come_back_bit_for_bit(workspace, stream, options):
    episode, path = write(workspace, stream.episode(**options))
    assert verify_file(path) == []
    assert read_records(path) == (episode.start, episode.steps, episode.end)
    with EpisodeReader(path) as reader:
        assert reader.events == episode.events
        assert len(reader) == episode.end.steps


@pytest.mark.parametrize("options", [{"holds": (1, 20)}, {"steps": 12, "takeovers": ((0, 3), (7, 12))}, {"steps": 0, "takeovers": ()}])
def test_the_steps_as_arrays_are_the_driven_steps(workspace, stream, options):
    """One takeover step in a mode of its own, and one of which a person drives the gripper alone."""
    records = stream.episode(**options)
    taken = [i for i, record in enumerate(records) if isinstance(record, Step) and record.control_mode == ControlMode.HUMAN]
    for i, changes in zip(taken, ({"control_mode": ControlMode.TRANSITION}, {"source": [Source.POLICY, Source.HUMAN]}), strict=False):
        records[i] = msgspec.structs.replace(records[i], **changes)
    episode, path = write(workspace, records)
    start, block, end = read_block(path)
    driven = [step for step in episode.steps if not is_held(step)]
    assert (start, end) == (episode.start, episode.end)
    assert (block.session, block.episode_id) == (start.session, start.episode_id)
    assert block.rec_seq == max([start.rec_seq, *(step.rec_seq for step in episode.steps)])
    found = {
        "episode_step": block.steps,
        "observation": block.observations,
        "next_observation": block.following,
        "action": block.actions,
        "reward": block.rewards,
        "terminated": block.terminated,
        "run_id": block.runs,
        "control_mode": block.modes,
        "intervention_id": block.interventions,
    }
    for name, values in found.items():
        assert values.tolist() == [getattr(step, name) for step in driven], name
    assert block.human.tolist() == [is_human(step) for step in driven]
    assert sum(block.human.tolist()) == len(taken)


def test_policy_pictures_come_back_when_asked_for(workspace, stream):
    records = stream.episode(steps=6, takeovers=(), holds=(3,))
    rng = np.random.default_rng(0)

    def picture():
        return PolicyImage(camera="wrist", height=8, width=8, data=rng.bytes(192))

    def with_picture(record):
        if not isinstance(record, Step):
            return record
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        last = record.episode_step in (2, 5) and not record.hold_reason
        return Step(**(fields | {"images": [picture()], "next_images": [picture()] if last else []}))

    records = [with_picture(record) for record in records]
    episode, path = write(workspace, records)
    _, steps, _ = read_records(path, images=True)
    assert [step.images for step in steps] == [step.images for step in episode.steps]
    import h5py

    with h5py.File(path) as file:
        following = file["data/demo_0/next_obs/wrist"][:]
        driven = [step for step in episode.steps if not step.hold_reason]
        assert following[2].tobytes() == driven[2].next_images[0].data
        assert following[0].tobytes() == driven[1].images[0].data
    with EpisodeReader(path) as reader:
        assert [reader.policy_images(i, ["wrist"]) for i in range(len(reader))] == [step.images for step in driven]
        assert reader.policy_images(0, ["front"]) == []
        assert reader.policy_images(2, ["front", "wrist"]) == driven[2].images


def test_playback_gives_pictures_times_and_signals(workspace, stream):
    episode, path = write(workspace, stream.episode(frames=True, holds=(15,)))
    with EpisodeReader(path) as reader:
        assert reader.cameras == ["front"]
        assert [reader.frame("front", i) for i in range(reader.frame_count("front"))] == [frame.jpeg for frame in episode.frames]
        assert reader.frame_times_ns("front").tolist() == [frame.t_source_ns for frame in episode.frames]
        assert reader.frame_at("front", episode.frames[7].t_source_ns + 1) == 7
        assert reader.frame_at("front", 0) == 0
        assert reader.actions.shape == (40, 5)
        assert np.isnan(reader.human_action[:10]).all()
        assert reader.column("mode")[12] == "takeover"
        assert reader.column("seq", held=True).tolist() == [step.seq for step in episode.steps]
        assert reader.column("hold_reason", held=True)[15] == "command_stale"
        assert reader.interventions == [
            {"id": 0, "start": 10, "end": 19, "labeled_onset": -1, "kind": "", "trigger": "human", "operator": "op-01"}
        ]
        assert reader.observation("o3")[4] == next(s for s in episode.steps if s.episode_step == 4).observation[3]
        with pytest.raises(KeyError, match="known: o0"):
            reader.observation("nope")
        onset = [step for step in episode.steps if not step.hold_reason][10]
        assert ("takeover", onset.seq, onset.sim_state) in reader.simulator_states()
        assert reader.attributes["outcome"] == "success"


def test_failures_keep_the_exact_simulator_state(workspace, stream):
    episode, path = write(workspace, stream.episode(outcome=Outcome.FAILURE, takeovers=()))
    with EpisodeReader(path) as reader:
        assert ("failure", episode.steps[-1].seq, episode.steps[-1].sim_state) in reader.simulator_states()


def test_any_flipped_bit_is_found(workspace, stream):
    _, path = write(workspace, stream.episode(frames=True))
    good = path.read_bytes()
    for offset in [0, 30, 511, 512, 600, *stream.rng.integers(0, len(good), 80).tolist(), len(good) - 1]:
        bad = bytearray(good)
        bad[offset] ^= 1 << int(stream.rng.integers(0, 8))
        path.write_bytes(bad)
        assert verify_file(path) != [], f"flip at byte {offset} was not found"
    path.write_bytes(good[:-1])
    assert verify_file(path) != []
    with pytest.raises(DamagedFile):
        read_records(path)
    path.write_bytes(b"")
    assert verify_file(path) != []
    path.write_bytes(good)
    assert verify_file(path) == []


def test_the_seal_is_a_plain_sha256_with_its_field_zeroed(workspace, stream):
    """As documented, for anyone with another tool."""
    _, path = write(workspace, stream.episode())
    data = bytearray(path.read_bytes())
    assert data[:24] == b"takeover-episode sha256 "
    noted = bytes(data[24:88]).decode()
    data[24:88] = b"0" * 64
    assert hashlib.sha256(data).hexdigest() == noted


def test_contradicting_records_are_refused_with_the_step(workspace, stream):
    records = stream.episode()
    step = records[3]
    fields = {name: getattr(step, name) for name in step.__struct_fields__}
    records[3] = Step(**(fields | {"action": [0.0]}))
    with pytest.raises(EpisodeError, match=f"step seq {step.seq}: action has 1 numbers, the robot's action has 5"):
        write(workspace, records)
    with pytest.raises(EpisodeError, match="no episode_start"):
        gather(records[1:])


def test_an_episode_that_cannot_be_made_is_not_in_the_way_of_the_next(workspace, stream):
    def pictures(record):
        size = 8 if isinstance(record, Step) and record.episode_step < 5 else 4
        image = PolicyImage(camera="wrist", height=size, width=size, data=bytes(3 * size * size))
        return msgspec.structs.replace(record, images=[image]) if isinstance(record, Step) else record

    with pytest.raises(EpisodeError, match="change size") as caught:  # held on to, as a log does
        write(workspace, [pictures(record) for record in stream.episode()])
    assert verify_file(write(workspace, stream.episode())[1]) == []
    assert caught.value


def test_pre_intervention_labels_touch_only_policy_steps():
    modes = np.array([0] * 3 + [1] * 2 + [0] * 2 + [1] * 2 + [0] * 20 + [1], np.int8)
    labels = intervention_labels(modes, control_hz=20.0)
    assert labels.tolist() == [-10] * 3 + [1] * 2 + [-10] * 2 + [1] * 2 + [0] * 5 + [-10] * 15 + [1]
    assert intervention_labels(np.array([1, 0, 0], np.int8), 20.0).tolist() == [1, 0, 0]


def test_one_long_text_makes_no_other_event_long(workspace, stream):
    """The table gave every event the longest one's room: 16 KB for each of thousands of marks."""
    records = stream.episode(events=True)
    mark = next(record for record in records if isinstance(record, Event))
    texts = ["\U0001f916" * 4000, "", "schön", *["x"] * 2000]
    more = [msgspec.structs.replace(mark, rec_seq=10_000 + number, text=text) for number, text in enumerate(texts)]
    path, _, size = write_episode(workspace, gather([*records, *more]))
    assert size < 1_500_000
    assert verify_file(path) == []
    with open_episode(path) as file:
        events = read_events(file[DEMO], gather(records).start)
    assert [event.text for event in events] == [mark.text, *texts]
    assert events[0] == mark


def test_a_text_with_a_nul_is_kept_but_for_the_nul(workspace, stream):
    records = stream.episode(events=True)
    changed = [msgspec.structs.replace(record, text="a\0b\0") if isinstance(record, Event) else record for record in records]
    path = write_episode(workspace, gather(changed))[0]
    with open_episode(path) as file:
        (event,) = read_events(file[DEMO], gather(records).start)
    assert event.text == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_events_of_fixed_length_are_read_as_before(workspace, stream, tmp_path):
    """As all files had them until texts had any length, in the same schema version."""
    import h5py

    path = write_episode(workspace, gather(stream.episode(events=True)))[0]
    plain = tmp_path / "plain.hdf5"
    plain.write_bytes(path.read_bytes()[512:])
    with h5py.File(plain, "r+") as file:
        table = file[f"{DEMO}/hil/events"][:]
        fixed = np.dtype([(name, "S20" if name == "text" else table.dtype[name]) for name in table.dtype.names])
        rows = [tuple(row) for row in table]
        del file[f"{DEMO}/hil/events"]
        file[f"{DEMO}/hil/events"] = np.array(rows, fixed)
    old = tmp_path / "old.hdf5"
    old.write_bytes(seal(plain.read_bytes()))
    assert verify_file(old) == []
    with open_episode(old) as file, open_episode(path) as new:
        start = gather(stream.episode()).start
        assert file[f"{DEMO}/hil/events"].dtype["text"].kind == "S"
        assert read_events(file[DEMO], start) == read_events(new[DEMO], start)
        assert read_events(file[DEMO], start)[0].text == "schön"
