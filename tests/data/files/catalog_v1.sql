BEGIN TRANSACTION;
CREATE TABLE claims (
	segment_id VARCHAR(80) NOT NULL, 
	person VARCHAR(64) NOT NULL, 
	expires_ns BIGINT NOT NULL, 
	PRIMARY KEY (segment_id)
);
CREATE TABLE episodes (
	id VARCHAR(64) NOT NULL, 
	session_id VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	robot_id VARCHAR(64) NOT NULL, 
	task_id VARCHAR(64) NOT NULL, 
	operator VARCHAR(64) NOT NULL, 
	started_ns BIGINT NOT NULL, 
	ended_ns BIGINT NOT NULL, 
	control_hz FLOAT NOT NULL, 
	steps INTEGER NOT NULL, 
	human_steps INTEGER NOT NULL, 
	held_steps INTEGER NOT NULL, 
	takeovers INTEGER NOT NULL, 
	autonomous BOOLEAN NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	outcome_source VARCHAR(16) NOT NULL, 
	event_step INTEGER NOT NULL, 
	discarded BOOLEAN NOT NULL, 
	recovered BOOLEAN NOT NULL, 
	policy_version INTEGER NOT NULL, 
	policy_sha256 VARCHAR(64) NOT NULL, 
	start_seed BIGINT NOT NULL, 
	has_pictures BOOLEAN NOT NULL, 
	first_rec_seq BIGINT NOT NULL, 
	rec_ranges TEXT NOT NULL, 
	path VARCHAR(255) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "episodes" VALUES('s1-ep0000','s1',0,'policy','sim','pick-lift','op-01',1790000000050000000,1790000002150000000,20.0,40,15,0,2,0,'success','task',39,0,0,3,'ab',7,0,0,'[[0, 42]]','episodes/2026-09-21/s1-ep0000.hdf5','a44482561387bd710d32301654768104482ee868d27845a38d9168fdcc124c80',60268);
INSERT INTO "episodes" VALUES('s1-ep0001','s1',1,'policy','sim','pick-lift','op-01',1790000002200000000,1790000004300000000,20.0,40,0,0,0,1,'failure','task',39,0,0,3,'ab',7,0,43,'[[43, 85]]','episodes/2026-09-21/s1-ep0001.hdf5','b04521338578551ca4a5a549b47f1232870232bac74ed209b69d1c4487e5767b',58024);
INSERT INTO "episodes" VALUES('s1-ep0002','s1',2,'policy','sim','pick-lift','op-01',1790000004350000000,1790000006450000000,20.0,40,0,0,0,1,'success','task',39,1,0,3,'ab',7,0,86,'[[86, 128]]','episodes/2026-09-21/s1-ep0002.hdf5','47c9c093b408a024573efb65290f10671373b51611ce257b7599c0fb393085b3',58024);
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	session_id VARCHAR(64) NOT NULL, 
	policy_version INTEGER NOT NULL, 
	policy_sha256 VARCHAR(64) NOT NULL, 
	task_id VARCHAR(64) NOT NULL, 
	protocol VARCHAR(64) NOT NULL, 
	successes INTEGER NOT NULL, 
	n INTEGER NOT NULL, 
	created_ns BIGINT NOT NULL, 
	wall_s FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "evaluations" VALUES(1,'s1',1,'aa','pick-lift','heldout-200',80,200,1795257646842249681,0.0);
CREATE TABLE label_state (
	target VARCHAR(80) NOT NULL, 
	field VARCHAR(16) NOT NULL, 
	episode_id VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	author VARCHAR(64) NOT NULL, 
	wall_ns BIGINT NOT NULL, 
	event_id VARCHAR(32) NOT NULL, 
	PRIMARY KEY (target, field)
);
INSERT INTO "label_state" VALUES('s1-ep0000:t0','cause','s1-ep0000','force','lab-01',1,'01m7yv3fqccqx4j0m7jq2b0et3');
INSERT INTO "label_state" VALUES('s1-ep0000:t0','review','s1-ep0000','submitted','lab-01',2,'01m7yv3fqgk0gkz1vxfatt7xqy');
INSERT INTO "label_state" VALUES('s1-ep0000:t0','exclude','s1-ep0000','','lab-01',1795257646836378770,'01m7yv3fqm2ay4ahwft3shwqm2');
INSERT INTO "label_state" VALUES('s1-ep0001:f0','cause','s1-ep0001','wear','lab-01',5,'01m7yv3fqne5hfaq23mjanegwa');
INSERT INTO "label_state" VALUES('s1-ep0000','outcome','s1-ep0000','failure','lab-02',6,'01m7yv3fqqngrj6m4daz9kyjxq');
CREATE TABLE labels (
	number INTEGER NOT NULL, 
	id VARCHAR(32) NOT NULL, 
	target VARCHAR(80) NOT NULL, 
	episode_id VARCHAR(64) NOT NULL, 
	field VARCHAR(16) NOT NULL, 
	value TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	author VARCHAR(64) NOT NULL, 
	wall_ns BIGINT NOT NULL, 
	action VARCHAR(8) NOT NULL, 
	refers_to VARCHAR(32) NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "labels" VALUES(1,'01m7yv3fqccqx4j0m7jq2b0et3','s1-ep0000:t0','s1-ep0000','cause','force','','lab-01',1,'set','');
INSERT INTO "labels" VALUES(2,'01m7yv3fqgk0gkz1vxfatt7xqy','s1-ep0000:t0','s1-ep0000','review','submitted','','lab-01',2,'set','');
INSERT INTO "labels" VALUES(3,'01m7yv3fqhpg41ptqbk86kce78','s1-ep0000:t0','s1-ep0000','exclude','true','','lab-01',3,'set','');
INSERT INTO "labels" VALUES(4,'01m7yv3fqm2ay4ahwft3shwqm2','s1-ep0000:t0','s1-ep0000','exclude','','true','lab-01',1795257646836378770,'undo','01m7yv3fqhpg41ptqbk86kce78');
INSERT INTO "labels" VALUES(5,'01m7yv3fqne5hfaq23mjanegwa','s1-ep0001:f0','s1-ep0001','cause','wear','','lab-01',5,'set','');
INSERT INTO "labels" VALUES(6,'01m7yv3fqqngrj6m4daz9kyjxq','s1-ep0000','s1-ep0000','outcome','failure','','lab-02',6,'set','');
CREATE TABLE meta (
	name VARCHAR(32) NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('version',1);
INSERT INTO "meta" VALUES('changes',11);
CREATE TABLE people (
	id VARCHAR(64) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	consent_version VARCHAR(32) NOT NULL, 
	created_ns BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE policies (
	session_id VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	parent INTEGER NOT NULL, 
	learner VARCHAR(32) NOT NULL, 
	task_id VARCHAR(64) NOT NULL, 
	created_ns BIGINT NOT NULL, 
	updates BIGINT NOT NULL, 
	train_step BIGINT NOT NULL, 
	metrics TEXT NOT NULL, 
	PRIMARY KEY (session_id, version)
);
INSERT INTO "policies" VALUES('s1',1,'aa',0,'hil-serl','pick-lift',9,10,-1,'{"loss": 0.5}');
CREATE TABLE segments (
	id VARCHAR(80) NOT NULL, 
	episode_id VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	number INTEGER NOT NULL, 
	start_step INTEGER NOT NULL, 
	end_step INTEGER NOT NULL, 
	start_s FLOAT NOT NULL, 
	end_s FLOAT NOT NULL, 
	started_ns BIGINT NOT NULL, 
	"trigger" VARCHAR(16) NOT NULL, 
	detail VARCHAR(64) NOT NULL, 
	operator VARCHAR(64) NOT NULL, 
	policy_version INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "segments" VALUES('s1-ep0000:t0','s1-ep0000','takeover',0,5,9,0.3,0.55,1790000000350000000,'human','','op-01',3);
INSERT INTO "segments" VALUES('s1-ep0000:t1','s1-ep0000','takeover',1,20,29,1.1,1.55,1790000001150000000,'human','','op-01',3);
INSERT INTO "segments" VALUES('s1-ep0001:f0','s1-ep0001','failure',0,0,39,0.05,2.05,1790000002250000000,'','task','op-01',3);
CREATE TABLE sessions (
	id VARCHAR(64) NOT NULL, 
	station_id VARCHAR(64) NOT NULL, 
	robot_id VARCHAR(64) NOT NULL, 
	task_id VARCHAR(64) NOT NULL, 
	operator VARCHAR(64) NOT NULL, 
	started_ns BIGINT NOT NULL, 
	software VARCHAR(128) NOT NULL, 
	config_sha256 VARCHAR(64) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "sessions" VALUES('s1','st','sim','pick-lift','op-01',1790000000050000000,'takeover test','cd');
CREATE INDEX episodes_by_session ON episodes (session_id, first_rec_seq);
CREATE INDEX episodes_by_time ON episodes (started_ns, id);
CREATE INDEX segments_by_kind ON segments (kind, started_ns);
CREATE INDEX segments_by_time ON segments (started_ns, id);
CREATE INDEX segments_by_episode ON segments (episode_id);
CREATE INDEX labels_by_target ON labels (target, field);
CREATE INDEX labels_by_author ON labels (author, number);
CREATE INDEX label_state_by_field ON label_state (field, value);
CREATE INDEX label_state_by_episode ON label_state (episode_id);
CREATE INDEX evaluations_by_session ON evaluations (session_id, policy_version);
COMMIT;
