"""Tables of the catalog, and by name the rows that its queries return. Nothing here is particular to SQLite."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, Table, Text, false
from sqlalchemy import String as PlainString
from sqlalchemy.types import TypeEngine

from takeover.data.catalog_rows import EpisodeRow as EpisodeRow
from takeover.data.catalog_rows import EvaluationRow as EvaluationRow
from takeover.data.catalog_rows import LabelEvent as LabelEvent
from takeover.data.catalog_rows import LabelUse as LabelUse
from takeover.data.catalog_rows import PolicyRow as PolicyRow
from takeover.data.catalog_rows import SegmentRow as SegmentRow
from takeover.data.catalog_rows import SessionRow as SessionRow

CATALOG_VERSION = 2
metadata = MetaData()


def String(length: int) -> TypeEngine[str]:
    """Names and ids, in the order of their code points on every server: pages are continued and merged by plain comparison."""
    return PlainString(length).with_variant(PlainString(length, collation="C"), "postgresql")


meta = Table("meta", metadata, Column("name", String(32), primary_key=True), Column("value", BigInteger, nullable=False))

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("station_id", String(64), nullable=False),
    Column("robot_id", String(64), nullable=False),
    Column("task_id", String(64), nullable=False),
    Column("operator", String(64), nullable=False),
    Column("started_ns", BigInteger, nullable=False),  # wall
    Column("software", String(128), nullable=False),
    Column("config_sha256", String(64), nullable=False),
    Column("episode_count", Integer, nullable=False, server_default="0"),  # kept by `catalog_current`
    Column("step_count", BigInteger, nullable=False, server_default="0"),
)

episodes = Table(
    "episodes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("session_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("robot_id", String(64), nullable=False),
    Column("task_id", String(64), nullable=False),
    Column("operator", String(64), nullable=False),
    Column("started_ns", BigInteger, nullable=False),  # wall
    Column("ended_ns", BigInteger, nullable=False),
    Column("control_hz", Float, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("human_steps", Integer, nullable=False),
    Column("held_steps", Integer, nullable=False),
    Column("takeovers", Integer, nullable=False),
    Column("autonomous", Boolean, nullable=False),
    Column("outcome", String(16), nullable=False),  # as recorded; the label "outcome" overrides it
    Column("outcome_source", String(16), nullable=False),
    Column("event_step", Integer, nullable=False),
    Column("discarded", Boolean, nullable=False),
    Column("recovered", Boolean, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("policy_sha256", String(64), nullable=False),
    Column("start_seed", BigInteger, nullable=False),
    Column("has_pictures", Boolean, nullable=False),
    Column("first_rec_seq", BigInteger, nullable=False),
    Column("rec_ranges", Text, nullable=False),  # JSON [[first, last], ...] of the stream's records in the file
    Column("path", String(255), nullable=False),  # in the workspace
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # what holds now, labels over the record: kept by `catalog_current`, so that pages need no join
    Column("current_outcome", String(16), nullable=False, server_default=""),  # "": as recorded
    Column("current_source", String(16), nullable=False, server_default=""),
    Column("current_step", Integer, nullable=False, server_default="-1"),  # the outcome's step
    Column("excluded", Boolean, nullable=False, server_default=false()),
)
Index("episodes_by_session", episodes.c.session_id, episodes.c.first_rec_seq)
Index("episodes_by_time", episodes.c.started_ns, episodes.c.id)
for _name in ("session_id", "task_id", "kind", "operator", "policy_version", "current_outcome"):
    Index(f"episodes_page_{_name}", episodes.c[_name], episodes.c.started_ns)
Index("episodes_steps", episodes.c.session_id, episodes.c.steps)  # counts of a session without its rows
Index("episodes_discarded", episodes.c.discarded)

segments = Table(
    "segments",
    metadata,
    Column("id", String(80), primary_key=True),  # <episode>:<kind initial><number>
    Column("episode_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),  # takeover, failure, safety
    Column("number", Integer, nullable=False),  # intervention id, or a count
    Column("start_step", Integer, nullable=False),
    Column("end_step", Integer, nullable=False),  # inclusive
    Column("start_s", Float, nullable=False),  # since the episode's start
    Column("end_s", Float, nullable=False),
    Column("started_ns", BigInteger, nullable=False),  # wall, for the order of the queue
    Column("trigger", String(16), nullable=False),
    Column("detail", String(64), nullable=False),  # the hold reason of a safety segment
    Column("operator", String(64), nullable=False),
    Column("policy_version", Integer, nullable=False),  # at the segment's first step
    # of its episode, and of its current labels: kept by `catalog_current`, so that a page reads one table in one index's order
    Column("session_id", String(64), nullable=False, server_default=""),
    Column("task_id", String(64), nullable=False, server_default=""),
    Column("cause", String(16), nullable=False, server_default=""),
    Column("labeled", Boolean, nullable=False, server_default=false()),  # has a cause
    Column("done", Boolean, nullable=False, server_default=false()),  # submitted
    Column("excluded", Boolean, nullable=False, server_default=false()),
)
Index("segments_by_time", segments.c.started_ns, segments.c.id)
Index("segments_page_episode", segments.c.episode_id, segments.c.cause)
Index("segments_by_kind", segments.c.kind, segments.c.started_ns)
for _name in ("session_id", "task_id", "policy_version", "cause", "labeled", "done", "excluded", "operator", "detail"):
    Index(f"segments_page_{_name}", segments.c[_name], segments.c.started_ns)
for _name, _second in (("cause", "done"), ("kind", "done"), ("kind", "labeled")):  # pairs of which one may be rare within the other
    Index(f"segments_page_{_name}_{_second}", segments.c[_name], segments.c[_second], segments.c.started_ns)

label_events = Table(  # append-only
    "labels",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("target", String(80), nullable=False),  # a segment's or an episode's id
    Column("episode_id", String(64), nullable=False),
    Column("field", String(48), nullable=False),
    Column("value", Text, nullable=False),  # "": taken back
    Column("previous", Text, nullable=False),
    Column("author", String(64), nullable=False),
    Column("wall_ns", BigInteger, nullable=False),
    Column("action", String(8), nullable=False),  # set, undo, redo
    Column("refers_to", String(32), nullable=False),  # the event undone or redone
    Column("blind", Boolean, nullable=False, server_default=false()),  # a second opinion: it changes nothing but the agreement
)
Index("labels_page_author", label_events.c.author, label_events.c.wall_ns)
Index("labels_by_target", label_events.c.target, label_events.c.field)
Index("labels_by_time", label_events.c.wall_ns)
Index("labels_blind", label_events.c.blind, label_events.c.field)

label_state = Table(  # the newest event's value of every (target, field): a view that is kept, so that pages stay fast
    "label_state",
    metadata,
    Column("target", String(80), primary_key=True),
    Column("field", String(48), primary_key=True),
    Column("episode_id", String(64), nullable=False),
    Column("value", Text, nullable=False),
    Column("step", Integer, nullable=False, server_default="-1"),  # of a dated outcome
    Column("author", String(64), nullable=False),
    Column("wall_ns", BigInteger, nullable=False),
    Column("event_id", String(32), nullable=False),
)
Index("label_state_by_field", label_state.c.field, label_state.c.value)
Index("label_state_by_episode", label_state.c.episode_id)

policies = Table(
    "policies",
    metadata,
    Column("session_id", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("parent", Integer, nullable=False),
    Column("learner", String(32), nullable=False),
    Column("task_id", String(64), nullable=False),
    Column("created_ns", BigInteger, nullable=False),  # wall
    Column("updates", BigInteger, nullable=False),
    Column("train_step", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),  # JSON
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("session_id", String(64), nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("policy_sha256", String(64), nullable=False),
    Column("task_id", String(64), nullable=False),
    Column("protocol", String(64), nullable=False),  # e.g. "heldout-200"
    Column("successes", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("wall_s", Float, nullable=False),
)
Index("evaluations_by_session", evaluations.c.session_id, evaluations.c.policy_version)

people = Table(
    "people",
    metadata,
    Column("id", String(64), primary_key=True),  # pseudonym
    Column("role", String(16), nullable=False),
    Column("consent_version", String(32), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("segment_id", String(80), primary_key=True),
    Column("person", String(64), nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("blind", Boolean, nullable=False, server_default=false()),
)
Index("claims_by_person", claims.c.person)

label_uses = Table(  # which update of a learner was the first that a label had an effect on
    "label_uses",
    metadata,
    Column("event_id", String(32), primary_key=True),
    Column("learner", String(80), primary_key=True),  # <session>/<learner>
    Column("target", String(80), nullable=False),
    Column("update_number", BigInteger, nullable=False),
    Column("policy_version", Integer, nullable=False, server_default="0"),  # the first weights that hold it; 0: not published yet
    Column("wall_ns", BigInteger, nullable=False),
)
Index("label_uses_by_target", label_uses.c.target)
