"""The configuration file: every mistake is told, all at once, each at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.config.loading import CONFIG_VARIABLE, config_path, load_cluster, load_config, parse_config
from etcdkeep.config.models import Cluster, Limits
from etcdkeep.config.profiles import PROFILES
from etcdkeep.errors import ConfigError
from tests.builders import age_pair, make_cluster, make_entry, make_file, signing_pair

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"


def problems(*entries, **file):
    return parse_config(make_file(*entries, **file), "clusters.yaml").problems


def test_a_sound_file_has_no_problem():
    config = parse_config(make_file(make_entry(name="a"), make_entry(name="b")), "clusters.yaml")
    assert list(config.clusters) == ["a", "b"]
    assert config.problems == ()
    config.raise_for_problems()


@pytest.fixture
def mixed(tmp_path):
    """A file whose defaults name the admin cluster of some, with sound, broken and repeated entries."""
    path = tmp_path / "clusters.yaml"
    entries = (
        make_entry(name="admin"),
        make_entry(
            name="skiff", profile="gke-user-kubeception", kubeconfig=None, admin_cluster="admin", schedule="17 3 * * *"
        ),
        make_entry(name="lost", profile="gke-user-kubeception", kubeconfig=None, admin_cluster="absent"),
        make_entry(name="bad", immutable_days=-1),
        make_entry(name="twice"),
        make_entry(name="twice"),
        make_entry(name="spread", spread_minutes=60),
    )
    path.write_text(make_file(*entries))
    return path


@pytest.mark.parametrize("name", ["admin", "skiff", "spread"])
def test_a_cluster_is_the_same_whether_it_is_read_alone_or_with_all_others(mixed, name):
    assert load_cluster(name, mixed) == load_config(mixed).cluster(name)


@pytest.mark.parametrize("name", ["lost", "bad", "twice", "absent"])
def test_a_cluster_that_cannot_be_used_is_told_in_the_same_words(mixed, name):
    with pytest.raises(ConfigError) as alone:
        load_cluster(name, mixed)
    with pytest.raises(ConfigError) as among_all:
        load_config(mixed).cluster(name)
    assert str(alone.value) == str(among_all.value)


def test_a_cluster_is_read_again_when_the_file_has_changed(mixed):
    assert load_cluster("skiff", mixed).schedule == "17 3 * * *"
    mixed.write_text(mixed.read_text().replace("17 3 * * *", "18 4 * * *"))
    assert load_cluster("skiff", mixed).schedule == "18 4 * * *"


def test_a_task_checks_only_the_clusters_that_it_needs(mixed, monkeypatch):
    checked = []
    validate = Cluster.model_validate
    monkeypatch.setattr(Cluster, "model_validate", lambda entry: (checked.append(entry["name"]), validate(entry))[1])
    load_cluster("skiff", mixed)
    assert checked == ["admin", "skiff"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"name": "../other"}, "name", id="name-leads-elsewhere"),
        pytest.param({"name": "a/b"}, "name", id="name-with-slash"),
        pytest.param({"name": "Harbor"}, "name", id="name-in-capitals"),
        pytest.param({"name": "harbor\n"}, "name", id="name-with-newline"),
        pytest.param({"name": "x" * 64}, "name", id="name-too-long"),
        pytest.param({"name": 7}, "name", id="name-is-a-number"),
        pytest.param({"name": None}, "name", id="no-name"),
        pytest.param({"profile": "gke"}, "profile", id="profile"),
        pytest.param({"profile": None}, "profile", id="no-profile"),
        pytest.param({"kubeconfig": {"connection": "a", "path": "/b"}}, "kubeconfig", id="two-kubeconfigs"),
        pytest.param({"kubeconfig": {}}, "kubeconfig", id="no-kubeconfig-source"),
        pytest.param({"kubeconfig": {"in_cluster": False}}, "kubeconfig.in_cluster", id="in-cluster-false"),
        pytest.param({"kubeconfig": None}, "kubeconfig", id="no-kubeconfig"),
        pytest.param({"kubeconfig": {"path": "relative"}}, "kubeconfig.path", id="relative-path"),
        pytest.param({"repository": None}, "repository", id="no-repository"),
        pytest.param({"repository": "ftp://bucket"}, "repository", id="unknown-store"),
        pytest.param({"repository": "file://host/path"}, "repository", id="file-of-another-host"),
        pytest.param({"repository": "gs://bucket/a?b"}, "repository", id="query-in-url"),
        pytest.param({"spool": "/tmp/spool"}, "spool", id="spool-is-no-url"),
        pytest.param({"immutable_days": -1}, "immutable_days", id="negative-days"),
        pytest.param({"age_recipients": None}, "age_recipients", id="no-recipients"),
        pytest.param({"age_recipients": []}, "age_recipients", id="empty-recipients"),
        pytest.param({"age_recipients": ["age1mistyped"]}, "age_recipients", id="mistyped-recipient"),
        pytest.param({"index_recipients": ["age1mistyped"]}, "index_recipients", id="mistyped-index-recipient"),
        pytest.param({"index_recipients": [age_pair()[1]]}, "index_recipients", id="index-recipient-opens-backups"),
        pytest.param({"signing": None}, "signing", id="no-signing"),
        pytest.param({"signing": {"public_keys": []}}, "signing.public_keys", id="no-public-key"),
        pytest.param({"signing": {"public_keys": ["c2hvcnQ="]}}, "signing.public_keys", id="short-public-key"),
        pytest.param({"schedule": "every night"}, "schedule", id="schedule-in-words"),
        pytest.param({"schedule": "99 2 * * *"}, "schedule", id="minute-99"),
        pytest.param({"schedule": "0 30 2 * * *"}, "schedule", id="six-fields"),
        pytest.param({"schedule": "@nightly"}, "schedule", id="unknown-preset"),
        pytest.param({"schedule": "0 2 31 2 *"}, "schedule", id="31-february"),
        pytest.param({"schedule": "0 2 30-31 feb *"}, "schedule", id="30-february-by-name"),
        pytest.param({"schedule": "30 4 31 4,6,9,11 *"}, "schedule", id="31-of-short-months"),
        pytest.param({"drill": {"schedule": "0 5 31 2 *"}}, "drill.schedule", id="drill-that-never-comes"),
        pytest.param({"copy_out": "scp"}, "copy_out", id="copy-out"),
        pytest.param({"retention": {}}, "retention", id="empty-retention"),
        pytest.param({"retention": {"min_good": 5, "enforce": True}}, "retention", id="retention-without-a-rule"),
        pytest.param({"retention": {"daily": 7, "min_good": 0}}, "retention.min_good", id="no-floor"),
        pytest.param({"retention": {"daily": 0}}, "retention.daily", id="keep-none"),
        pytest.param({"retention": {"weekly": -1}}, "retention.weekly", id="keep-less-than-none"),
        pytest.param({"retention": {"keep_daily": 7}}, "retention.keep_daily", id="unknown-rule"),
        pytest.param({"retention": {"keep_within": "2 days"}}, "retention.keep_within", id="duration-in-words"),
        pytest.param({"retention": {"keep_within": "0d"}}, "retention.keep_within", id="duration-of-no-length"),
        pytest.param({"retention": {"daily": 7, "keep_bad_days": 0}}, "retention.keep_bad_days", id="no-analysis"),
        pytest.param({"retention": {"daily": 7, "max_remove_share": 0}}, "retention.max_remove_share", id="share-0"),
        pytest.param({"retention": {"daily": 7, "max_remove_share": 25}}, "retention.max_remove_share", id="percent"),
        pytest.param({"freshness": {"warn_after": "soon"}}, "freshness.warn_after", id="freshness-in-words"),
        pytest.param({"freshness": {"warn_after": "3d", "fail_after": "2d"}}, "freshness", id="fails-before-it-warns"),
        pytest.param({"extra_paths": ["etc/audit"]}, "extra_paths[0]", id="relative-extra-path"),
        pytest.param({"ssh": {"port": 0}}, "ssh.port", id="port-0"),
        pytest.param({"ssh": {"port": 65536}}, "ssh.port", id="port-65536"),
        pytest.param({"ssh": {"host_keys": ["ssh-dss AAAA"]}}, "ssh.host_keys[0]", id="host-key-kind"),
        pytest.param({"ssh": {"host_keys": [HOST_KEY[:40]]}}, "ssh.host_keys[0]", id="host-key-cut"),
        pytest.param({"ssh": {"addresses": {"cp-0": "10.0.0.1:ssh"}}}, "ssh.addresses.cp-0", id="port-in-words"),
        pytest.param({"ssh": {"addresses": {"cp-0": "10.0.0.1:70000"}}}, "ssh.addresses.cp-0", id="port-too-high"),
        pytest.param({"ssh": {"key": {"secret": "sshkeys"}}}, "ssh.key.secret", id="secret-without-namespace"),
        pytest.param({"ssh": {"key": {"secret": "../a/b"}}}, "ssh.key.secret", id="secret-leads-elsewhere"),
        pytest.param({"ssh": {"jump": {}}}, "ssh.jump.host", id="jump-without-host"),
        pytest.param({"ssh": {"strict_host_keys": False}}, "ssh.strict_host_keys", id="no-switch-for-host-keys"),
        pytest.param({"limits": {"stall_s": 0}}, "limits.stall_s", id="no-stall-limit"),
        pytest.param({"limits": {"command_s": -5}}, "limits.command_s", id="negative-time"),
        pytest.param({"tags": ["x" * 101]}, "tags[0]", id="tag-too-long-for-airflow"),
        pytest.param({"tags": [""]}, "tags[0]", id="empty-tag"),
        pytest.param({"control_plane": {"namespace": "a/../b"}}, "control_plane.namespace", id="namespace-elsewhere"),
        pytest.param({"control_plane": {"namespace": "{name}"}}, "control_plane.namespace", id="unknown-placeholder"),
        pytest.param({"control_plane": {"pod_name": "etcd-("}}, "control_plane.pod_name", id="broken-expression"),
        pytest.param({"control_plane": {"endpoint": "https://a:1,https://b:1"}}, "control_plane.endpoint", id="two-endpoints"),
        pytest.param({"control_plane": {"etcdctl": []}}, "control_plane.etcdctl", id="no-etcdctl"),
        pytest.param({"control_plane": {"tls": {"ca": "ca.crt"}}}, "control_plane.tls.ca", id="relative-tls-file"),
        pytest.param({"control_plane": {"data_owner": "etcd"}}, "control_plane.data_owner", id="owner-by-name"),
        pytest.param({"control_plane": "kubeadm"}, "control_plane", id="section-is-text"),
        pytest.param({"shedule": "@daily"}, "shedule", id="unknown-key"),
        pytest.param({"ssh": {"jump": {"host": "b", "pot": 1}}}, "ssh.jump.pot", id="unknown-key-inside"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_place_and_only_its_cluster_is_lost(change, path):
    config = parse_config(make_file(make_entry(**change), make_entry(name="sound")), "clusters.yaml")
    (problem,) = config.problems
    name = change.get("name", "harbor") or "without a name"
    assert problem.startswith(f"clusters[0] ({name}).{path}: ")
    assert list(config.clusters) == ["sound"]
    with pytest.raises(ConfigError) as caught:
        config.raise_for_problems()
    assert problem in str(caught.value)
    assert caught.value.problems == config.problems


@pytest.mark.parametrize("schedule", ["0 2 29 2 *", "0 2 31 2 1", "0 2 31 */2 *", "0 2 L 2 *", "0 2 * 2 mon#5"])
def test_a_schedule_that_comes_seldom_is_taken(schedule):
    assert problems(make_entry(schedule=schedule, drill={"schedule": schedule})) == ()


def test_a_schedule_that_never_comes_is_called_that():
    (problem,) = problems(make_entry(schedule="0 2 31 2 *"))
    assert "'0 2 31 2 *' never comes: no such day exists" in problem


def test_an_unknown_key_says_where_the_known_ones_are():
    (problem,) = problems(make_entry(shedule="@daily"))
    assert (
        problem
        == "clusters[0] (harbor).shedule: unknown key; see `python -m etcdkeep config schema` for the known ones"
    )


def test_all_mistakes_of_all_clusters_are_told_at_once():
    found = problems(make_entry(name="a", profile="x", schedule="x"), "text", make_entry(name="b", spool="x"))
    assert [problem.partition(": ")[0] for problem in found] == [
        "clusters[0] (a).profile",
        "clusters[0] (a).schedule",
        "clusters[1]",
        "clusters[2] (b).spool",
    ]


def test_two_clusters_with_one_name_are_both_refused():
    config = parse_config(make_file(make_entry(), make_entry(), make_entry(name="other")), "clusters.yaml")
    assert config.problems == (
        "clusters[0] (harbor).name: 2 clusters have this name; names are unique",
        "clusters[1] (harbor).name: 2 clusters have this name; names are unique",
    )
    assert list(config.clusters) == ["other"]


def test_two_clusters_without_a_name_each_miss_it():
    found = problems(make_entry(name=None), make_entry(name=None))
    assert found == (
        "clusters[0] (without a name).name: Field required",
        "clusters[1] (without a name).name: Field required",
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param({"schema_version": 2}, "schema_version: Input should be 1", id="other-version"),
        pytest.param({"cluster": []}, "cluster: unknown key", id="unknown-key"),
        pytest.param({"defaults": []}, "defaults: Input should be a valid dictionary", id="defaults-is-a-list"),
    ],
)
def test_a_mistake_of_the_whole_file_is_told_with_those_of_the_clusters(file, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(make_file(make_entry(schedule="x"), **file), "clusters.yaml")
    assert any(said in problem for problem in caught.value.problems)
    assert any(problem.startswith("clusters[0] (harbor).schedule: ") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("clusters: [", "not valid YAML", id="unclosed"),
        pytest.param("a: b: c", "not valid YAML", id="two-colons"),
        pytest.param("clusters: []\nclusters: []", "key 'clusters' is given twice", id="key-twice"),
        pytest.param("clusters: [{name: a, ssh: {port: 1, port: 2}}]", "key 'port' is given twice", id="key-twice-inside"),
        pytest.param("{[a, b]: c}", "not valid YAML", id="list-as-key"),
        pytest.param("clusters: 2026-13-45", "not valid YAML", id="impossible-date"),
        pytest.param("clusters: !!python/object:os.system []", "not valid YAML", id="python-object"),
        pytest.param("&a [*a]", "expected a mapping", id="list-of-itself"),
        pytest.param("[" * 2000, "not valid YAML", id="deep"),
        pytest.param("", "expected a mapping with schema_version and clusters, found NoneType", id="empty"),
        pytest.param("text", "expected a mapping", id="text"),
        pytest.param("schema_version: 1", "clusters: expected a list of clusters, found NoneType", id="no-clusters"),
        pytest.param("clusters: {harbor: {}}", "clusters: expected a list of clusters, found dict", id="clusters-by-name"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_says_so(text, said):
    with pytest.raises(ConfigError, match=r"^clusters\.yaml") as caught:
        parse_config(text, "clusters.yaml")
    assert said in str(caught.value)


@given(st.text(max_size=200) | st.recursive(st.none() | st.text(max_size=8) | st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["clusters", "defaults", "schema_version", "name", "ssh", "control_plane", "tls", "limits", "x"]), inner, max_size=4)).map(str))  # fmt: skip
def test_any_text_is_a_configuration_or_a_configuration_error(text):
    try:
        parse_config(text, "clusters.yaml")
    except ConfigError:
        return


def test_anchors_and_merge_keys_work():
    merged = "schema_version: 1\nclusters:\n- &first\n" + "".join(
        f"  {line}\n" for line in make_file(make_entry()).split("- ", 1)[1].replace("\n  ", "\n").splitlines()
    )
    both = parse_config(f"{merged}- {{<<: *first, name: second}}\n", "clusters.yaml")
    assert list(both.clusters) == ["harbor", "second"]


def test_defaults_lie_beneath_every_cluster_section_by_section():
    defaults = {
        "repository": "gs://backups",
        "limits": {"stall_s": 5},
        "ssh": {"user": "core", "key": {"connection": "ssh"}},
        "age_identity": {"connection": "age"},
        "control_plane": {"tls": {"ca": "/ca"}},
    }
    entry = make_entry(
        repository=None,
        limits={"command_s": 9},
        ssh={"port": 2222, "key": {"path": "/key"}},
        age_identity={"path": "/age"},
        control_plane={"tls": {"cert": "/cert"}},
    )
    cluster = parse_config(make_file(entry, defaults=defaults), "clusters.yaml").cluster("harbor")
    assert cluster.repository == "gs://backups"
    assert (cluster.limits.stall_s, cluster.limits.command_s) == (5, 9)
    assert (cluster.ssh.user, cluster.ssh.port) == ("core", 2222)
    assert (cluster.ssh.key.path, cluster.ssh.key.connection) == ("/key", None), (
        "of alternatives, the cluster's own wins"
    )
    assert cluster.age_identity is not None
    assert (cluster.age_identity.path, cluster.age_identity.connection) == ("/age", None)
    tls = cluster.control_plane.tls
    assert (tls.ca, tls.cert, tls.key) == ("/ca", "/cert", "/etc/kubernetes/pki/etcd/healthcheck-client.key")


SSH_RECIPIENT = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"


def test_index_recipients_come_from_the_defaults_and_a_cluster_may_have_none():
    entries = [make_entry(), make_entry(name="b", index_recipients=[])]
    config = parse_config(make_file(*entries, defaults={"index_recipients": [age_pair("index")[1]]}), "f")
    assert [each.index_recipients for each in config.clusters.values()] == [(age_pair("index")[1],), ()]


def test_an_index_recipient_that_opens_backups_is_refused_under_any_comment():
    entry = make_entry(age_recipients=[f"{SSH_RECIPIENT} safe"], index_recipients=[f"{SSH_RECIPIENT} page"])
    assert problems(entry) == (
        f"clusters[0] (harbor).index_recipients: {SSH_RECIPIENT} is also in age_recipients, so its identity opens whole backups. "
        "Give the indexes a key of their own (python -m etcdkeep keygen).",
    )


def test_a_mistake_in_the_defaults_is_told_once_as_theirs():
    defaults = {"schedule": "x", "ssh": {"usr": "core"}, "age_recipients": ["age1x"]}
    entries = [make_entry(name=name, age_recipients=None) for name in ("a", "b", "c")]
    assert [problem.partition(": ")[0] for problem in problems(*entries, defaults=defaults)] == [
        "defaults.ssh.usr",
        "defaults.schedule",
        "defaults.age_recipients",
    ]


def test_a_cluster_that_overrides_a_wrong_default_stays():
    config = parse_config(make_file(make_entry(schedule=None), make_entry(name="b", schedule="@daily"), defaults={"schedule": "x"}), "f")  # fmt: skip
    assert list(config.clusters) == ["b"]


def test_a_name_in_the_defaults_is_refused_and_given_to_no_cluster():
    config = parse_config(make_file(make_entry(name=None), defaults={"name": "everyone"}), "f")
    assert config.problems[0] == "defaults.name: every cluster has a name of its own; remove it here"
    assert config.clusters == {}


def test_a_kubeception_cluster_is_reached_through_its_admin_cluster():
    admin = make_entry(name="admin", profile="gke-admin", kubeconfig={"connection": "admin"})
    user = make_entry(name="skiff", profile="gke-user-kubeception", kubeconfig=None, admin_cluster="admin")
    config = parse_config(make_file(user, admin), "f")
    skiff = config.cluster("skiff")
    assert skiff.kubeconfig is not None
    assert skiff.kubeconfig.connection == "admin"
    assert skiff.namespace == "skiff"


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        pytest.param({"name": "other"}, "'admin' is not a usable cluster of this file", id="unknown"),
        pytest.param({"profile": "x"}, "'admin' is not a usable cluster of this file", id="unusable"),
        pytest.param({"kubeconfig": None}, "'admin' has no kubeconfig of its own", id="without-kubeconfig"),
    ],
)
@pytest.mark.parametrize("first", ["admin", "user"])
def test_an_admin_cluster_must_be_usable_wherever_it_stands(admin, said, first):
    user = make_entry(name="skiff", profile="gke-user-kubeception", kubeconfig=None, admin_cluster="admin")
    entries = [user, make_entry(**{"name": "admin", **admin})]
    config = parse_config(make_file(*(entries if first == "user" else entries[::-1])), "f")
    assert any(f"(skiff).admin_cluster: {said}" in problem for problem in config.problems)
    assert "skiff" not in config.clusters


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"admin_cluster": "admin", "kubeconfig": None}, "admin_cluster: only for", id="etcd-of-the-admin-cluster"),
        pytest.param({"own_kubeconfig": {"path": "/k"}}, "own_kubeconfig: only for", id="own-api-twice"),
        pytest.param({"profile": "gke-user-kubeception", "copy_out": "node"}, "copy_out: node needs ssh.addresses", id="node-unknown"),
        pytest.param({"profile": "gke-user-kubeception", "extra_paths": ["/a"]}, "extra_paths: this kind of cluster", id="paths-of-no-node"),
        pytest.param({"limits": {"task_s": 200}}, "limits: task_s is 200, expected more than the longest of the other limits, 300", id="task-limit"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(change, said):
    (problem,) = problems(make_entry(name="admin"), make_entry(name="other", **change))
    assert problem.startswith(f"clusters[1] (other).{said}")


def test_the_spool_is_in_the_repository_unless_set():
    assert make_cluster(repository="gs://backups/etcd/").spool_url == "gs://backups/etcd/.spool"
    assert make_cluster(spool="file:///spool").spool_url == "file:///spool"


def test_long_work_has_time_by_its_size():
    assert Limits(command_s=10, slowest_bytes_per_s=100).long_work_s(1000) == 20


def test_no_message_shows_a_private_key():
    age, (pem, _) = age_pair()[0].decode(), signing_pair()
    secret = age.splitlines()[-1]
    entry = make_entry(
        age_recipients=[secret],
        index_recipients=[secret],
        signing={"public_keys": [pem.decode()]},
        kubeconfig={"connection": "c", "private_key": secret},
        ssh={"key": {"secret": secret}, "host_keys": ["ssh-ed25519 x"]},
    )
    said = "\n".join(problems(entry))
    assert len(said.splitlines()) >= 4
    assert secret not in said
    assert pem.decode().splitlines()[1] not in said


def test_a_configured_cluster_is_found_by_name_and_another_is_an_error_that_lists_them():
    entries = (make_entry(), make_entry(name="bad", spool="x"), make_entry(name="worse", spool="y"))
    config = parse_config(make_file(*entries), "clusters.yaml")
    assert config.cluster("harbor").name == "harbor"
    with pytest.raises(
        ConfigError, match=r"cluster 'bad' is not usable in clusters\.yaml; usable are: harbor"
    ) as caught:
        config.cluster("bad")
    assert caught.value.problems == tuple(problem for problem in config.problems if "(bad)" in problem)
    with pytest.raises(
        ConfigError,
        match=r"cluster 'habor' is not configured in clusters\.yaml; usable are: harbor\. 2 problem\(s\) of other",
    ):
        config.cluster("habor")


def test_the_file_is_the_one_that_the_environment_names(tmp_path, monkeypatch):
    file = tmp_path / "clusters.yaml"
    file.write_text(make_file(make_entry()))
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert load_config().source == str(file)
    assert config_path({CONFIG_VARIABLE: "/x"}) == Path("/x")
    with pytest.raises(ConfigError, match=f"{CONFIG_VARIABLE} is not set"):
        config_path({})


@pytest.mark.parametrize("content", [pytest.param(None, id="missing"), pytest.param(b"\xff\xfe", id="not-utf-8")])
def test_a_file_that_cannot_be_read_says_which(tmp_path, content):
    file = tmp_path / "clusters.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_config(file)
    assert str(file) in str(caught.value)


PKI = "/etc/kubernetes/pki"
PROCEDURE = {
    "kubeadm": {"namespace": "kube-system", "pod_selector": "component=etcd,tier=control-plane", "container": "etcd"},
    "gke-admin": {
        "namespace": "kube-system",
        "pod_selector": "component=etcd,tier=control-plane",
        "container": "etcd",
        "endpoint": "https://127.0.0.1:2379",
        "tls": {
            "ca": f"{PKI}/etcd/ca.crt",
            "cert": f"{PKI}/etcd/healthcheck-client.crt",
            "key": f"{PKI}/etcd/healthcheck-client.key",
        },
        "snapshot_dir": "/tmp",
        "pki_dir": PKI,
        "manifests_dir": "/etc/kubernetes/manifests",
        "admin_conf": "/etc/kubernetes/admin.conf",
        "optional_paths": ("/opt/data/gke-k8s-kms-plugin/generatedkeys",),
        "data_dir": "/var/lib/etcd",
        "data_owner": "2001:2001",
        "restore_image": "gcr.io/gke-on-prem-release/etcd-util:{version}",
        "has_nodes": True,
    },
    "gke-user-kubeception": {
        "namespace": "{cluster}",
        "pod_selector": "",
        "pod_name": "kube-etcd-[0-9]+",
        "container": "kube-etcd",
        "tls": {
            "ca": "/etcd.local.config/certificates/etcdCA.crt",
            "cert": "/etcd.local.config/certificates/etcd.crt",
            "key": "/etcd.local.config/certificates/etcd.key",
        },
        "has_nodes": False,
    },
    "gke-user-controlplane-v2": {
        "namespace": "kube-system",
        "pod_selector": "component=etcd,tier=control-plane",
        "container": "etcd",
        "tls": {"ca": f"{PKI}/etcd/ca.crt", "cert": f"{PKI}/etcd/server.crt", "key": f"{PKI}/etcd/server.key"},
        "data_dir": "/opt/data/var/lib/etcd",
        "data_owner": "2001:2001",
        "has_nodes": True,
    },
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_gives_the_values_of_the_vendors_procedure(profile):
    found = make_cluster(profile=profile).control_plane.model_dump()
    assert {key: found[key] for key in PROCEDURE[profile]} == PROCEDURE[profile]


def test_the_ssh_key_is_the_vendors_secret_unless_set():
    ssh = make_cluster(profile="gke-admin").ssh
    assert (ssh.user, ssh.key.secret) == ("ubuntu", "kube-system/sshkeys/vsphere_tmp")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"path": "/k", "exec_plugins": ["sh"]}, "'sh' runs whatever a kubeconfig gives it"),
        ({"path": "/k", "exec_plugins": ["/usr/bin/python3.11"]}, "runs whatever a kubeconfig gives it"),
        ({"path": "/k", "exec_plugins": ["bin/plugin"]}, "expected a program's name or its whole path"),
        ({"path": "/k", "allow_insecure": ["tls"]}, "insecure-skip-tls-verify"),
        ({"exec_plugins": ["aws"]}, "give exactly one of connection, path, in_cluster"),
        ({"path": "/k", "connection": "c"}, "give exactly one of connection, path, in_cluster"),
    ],
)
def test_what_a_kubeconfig_may_do_is_checked(fields, said):
    with pytest.raises(ConfigError, match=said):
        parse_config(make_file(make_entry(kubeconfig=fields)), "clusters.yaml").raise_for_problems()


def test_what_a_kubeconfig_may_do_stands_beside_where_it_is():
    fields = {"path": "/k", "context": "c", "exec_plugins": ["aws", "/opt/plugin"], "allow_insecure": ["http"]}
    found = parse_config(make_file(make_entry(kubeconfig=fields)), "clusters.yaml").cluster("harbor").kubeconfig
    assert found is not None
    assert (found.exec_plugins, found.allow_insecure, found.context) == (("aws", "/opt/plugin"), ("http",), "c")


@pytest.mark.parametrize(
    ("ssh", "said"),
    [
        ({"connection": "c", "user": "core"}, "ssh: connection 'c' replaces user; remove either"),
        (
            {"connection": "c", "port": 22, "key": {"path": "/k"}},
            "ssh: connection 'c' replaces port, key; remove",
        ),
        ({"connection": "c", "password_file": "/p"}, "ssh: connection 'c' replaces password_file; remove"),
        ({"jump": {"connection": "c", "user": "core"}}, "ssh.jump: connection 'c' replaces user; remove"),
        ({"jump": {"user": "core"}}, "ssh.jump.host: missing; give it, or a connection that has one"),
        ({"connection": ""}, "ssh.connection: "),
    ],
)
def test_what_an_ssh_connection_says_is_not_said_twice(ssh, said):
    (problem,) = parse_config(make_file(make_entry(ssh=ssh)), "clusters.yaml").problems
    assert problem.startswith(f"clusters[0] (harbor).{said}")


def test_an_ssh_connection_takes_the_place_of_the_defaults():
    defaults = {
        "ssh": {
            "user": "core",
            "key": {"path": "/k"},
            "weak_algorithms": ["hmac-sha1"],
            "jump": {"host": "hop", "user": "core"},
        }
    }
    entry = make_entry(ssh={"connection": "c", "jump": {"connection": "d"}})
    config = parse_config(make_file(entry, make_entry(name="other"), defaults=defaults), "clusters.yaml")
    assert config.problems == ()
    ssh = config.cluster("harbor").ssh
    assert (ssh.connection, ssh.user, ssh.weak_algorithms) == ("c", "ubuntu", ("hmac-sha1",))
    assert ssh.jump is not None
    assert (ssh.jump.connection, ssh.jump.host, ssh.jump.user) == ("d", "hop", "ubuntu")
    assert config.cluster("other").ssh.user == "core"


def test_an_entry_can_do_without_the_connection_of_the_defaults():
    entry = make_entry(ssh={"connection": None, "user": "core"})
    config = parse_config(make_file(entry, defaults={"ssh": {"connection": "c"}}), "clusters.yaml")
    assert config.problems == ()
    assert config.cluster("harbor").ssh.user == "core"


def test_a_cluster_changes_single_rules_of_the_defaults_or_has_no_retention_at_all():
    defaults = {"retention": {"daily": 14, "min_good": 5}}
    entries = [
        make_entry(name="a"),
        make_entry(name="b", retention={"daily": 3}),
        {**make_entry(name="c"), "retention": None},
    ]
    config = parse_config(make_file(*entries, defaults=defaults), "f")
    config.raise_for_problems()
    found = [config.cluster(name).retention for name in "abc"]
    assert [each and (each.daily, each.min_good) for each in found] == [(14, 5), (3, 5), None]


def test_the_housekeeping_has_a_schedule_of_its_own():
    assert parse_config(make_file(make_entry()), "f").housekeeping_schedule == "0 6 * * *"
    assert parse_config(make_file(make_entry(), housekeeping_schedule=None), "f").housekeeping_schedule is None
    with pytest.raises(ConfigError, match="housekeeping_schedule: expected five cron fields"):
        parse_config(make_file(make_entry(), housekeeping_schedule="daily"), "f")
