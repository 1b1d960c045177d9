"""Bad resources, each refused by the API server with a sentence that tells what to do."""

from typing import Any, NamedTuple

import pytest

from .conftest import Kubectl
from .resources import REMOVED, changed, minimal

IMAGE = "spec.model.source.image"
CLAIM = "spec.model.source.persistentVolumeClaim"
QUANTITY = "write a quantity greater than 0, like 500m or 4 for cpu and 512Mi or 24Gi for memory"
OBJECT_NAME = "write the name of a Kubernetes object: lower-case letters, digits, '-' and '.'"
INSIDE = "write a path inside the volume: no '/' in front and no '..' in it"
EXTENDED = "write an extended resource as the device plug-in names it, like nvidia.com/gpu"
LABEL_KEY = "write label keys as an optional DNS prefix and '/', then at most 63 letters"
LABEL_VALUE = "write label values of at most 63 letters, digits"
OURS = "choose other keys: serving.aixcoder.io/, app.kubernetes.io/ and controller.kubernetes.io/ are the operator's"
MOUNT_ELSEWHERE = "mount elsewhere, as under /mnt: /models, /tmp, /dev"
ABSOLUTE = "write an absolute path as /mnt/certificates, without '.', '..', '//' and a '/' at the end"
SCALING = "spec.autoscaling"
FIVE_FIELDS = "write five fields with one space between them: minute 0-59, hour 0-23, day 1-31, month 1-12 or JAN-DEC"
ZONE = "write a time zone's name from the IANA database, as Europe/Berlin or UTC"
RISING = "a range ends no earlier than it begins, and a week begins with SUN: SAT-SUN is SAT,SUN"
VOLUME_NAME = "write a volume name of at most 63 lower-case letters, digits and '-'"


class Bad(NamedTuple):
    """A right resource with `value` at `path`, and part of the sentence that it is refused with."""

    case: str
    path: str
    value: Any
    sentence: str


def _mounted(path: str) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": path}]}


def _scheduled(**entry: Any) -> dict[str, Any]:
    filled = {"start": "0 8 * * *", "end": "0 18 * * *", "minReplicas": 2} | entry
    return {"maxReplicas": 8, "schedule": [filled]}


def _moment(start: str) -> dict[str, Any]:
    return _scheduled(start=start)


BAD = [
    # name
    Bad("name of 39 characters", "metadata.name", "a" * 39, "metadata.name: at most 38 characters"),
    Bad("name with a dot", "metadata.name", "team.completion", "metadata.name: begin with a letter and use no dots"),
    Bad("name that begins with a digit", "metadata.name", "7b", "metadata.name: begin with a letter and use no dots"),
    # model
    Bad("no spec", "spec", REMOVED, "spec: Required value"),
    Bad("no model", "spec.model", REMOVED, "spec.model: Required value"),
    Bad("no source", "spec.model.source", REMOVED, "spec.model.source: Required value"),
    Bad("empty source", "spec.model.source", {}, "give exactly one of persistentVolumeClaim and image"),
    Bad("two sources", CLAIM, {"claimName": "w"}, "give exactly one of persistentVolumeClaim and image"),
    Bad("unknown variant", "spec.model.variant", "aixcoder-13b", 'supported values: "aixcoder-7b", "aixcoder-7b-base"'),
    Bad("served name with a space", "spec.model.servedName", "my model", "write a model name of letters, digits and"),
    Bad("empty served name", "spec.model.servedName", "", "should be at least 1 chars long"),
    Bad("served name too long", "spec.model.servedName", "a" * 129, "Too long: may not be more than 128"),
    Bad("image without reference", IMAGE, {"path": "x"}, f"{IMAGE}.reference: Required value"),
    Bad(
        "reference with a scheme", f"{IMAGE}.reference", "https://registry.example/m:1", "write an image reference like"
    ),
    Bad("reference with capitals", f"{IMAGE}.reference", "registry.example/Model:1", "write an image reference like"),
    Bad("reference with a short digest", f"{IMAGE}.reference", "m@sha256:abc", "write an image reference like"),
    Bad("empty reference", f"{IMAGE}.reference", "", "should be at least 1 chars long"),
    Bad("absolute path in the image", f"{IMAGE}.path", "/models", INSIDE),
    Bad("path that climbs out", f"{IMAGE}.path", "a/../../etc", INSIDE),
    Bad("claim without name", "spec.model.source", {"persistentVolumeClaim": {}}, f"{CLAIM}.claimName: Required value"),
    Bad("claim with capitals", "spec.model.source", {"persistentVolumeClaim": {"claimName": "Weights"}}, OBJECT_NAME),
    Bad(
        "absolute path in the claim",
        "spec.model.source",
        {"persistentVolumeClaim": {"claimName": "w", "path": "/aixcoder-7b"}},
        INSIDE,
    ),
    # engine
    Bad("unknown device", "spec.engine.device", "tpu", 'supported values: "cuda", "cpu"'),
    Bad("unknown dtype", "spec.engine.dtype", "int8", 'supported values: "bfloat16", "float16", "float32"'),
    Bad(
        "float16 on cpu",
        "spec.engine",
        {"device": "cpu", "dtype": "float16"},
        "dtype float16 does not run on device cpu: choose float32 or bfloat16 there",
    ),
    Bad("tensor parallel 3", "spec.engine.tensorParallelSize", 3, 'supported values: "1", "2", "4", "8"'),
    Bad("tensor parallel 16", "spec.engine.tensorParallelSize", 16, 'supported values: "1", "2", "4", "8"'),
    Bad("tensor parallel as text", "spec.engine.tensorParallelSize", "2", 'must be of type integer: "string"'),
    Bad("model length 8", "spec.engine.maxModelLength", 8, "should be greater than or equal to 16"),
    Bad("model length 65536", "spec.engine.maxModelLength", 65536, "should be less than or equal to 32768"),
    Bad("no sequence", "spec.engine.maxConcurrentSequences", 0, "should be greater than or equal to 1"),
    Bad("too many sequences", "spec.engine.maxConcurrentSequences", 5000, "should be less than or equal to 1024"),
    # replicas and resources
    Bad("fewer than no replica", "spec.replicas", -1, "should be greater than or equal to 0"),
    Bad("too many replicas", "spec.replicas", 257, "should be less than or equal to 256"),
    Bad("half a replica", "spec.replicas", 1.5, "spec.replicas in body must be of type integer: "),
    Bad("cuda without GPUs", "spec.resources.gpu", REMOVED, "add resources.gpu, or set engine.device to cpu"),
    Bad("no resources at all", "spec.resources", REMOVED, "add resources.gpu, or set engine.device to cpu"),
    Bad("cpu in words", "spec.resources.cpu", "four", QUANTITY),
    Bad("cpu of nothing", "spec.resources.cpu", 0, QUANTITY),
    Bad("cpu below nothing", "spec.resources.cpu", "-1", QUANTITY),
    Bad("cpu as a fraction", "spec.resources.cpu", 0.5, "must be of type integer,string"),
    Bad("memory with a wrong unit", "spec.resources.memory", "24GB", QUANTITY),
    Bad("memory with a space", "spec.resources.memory", "24 Gi", QUANTITY),
    Bad("head memory of nothing", "spec.head.resources.memory", "0", QUANTITY),
    Bad("head cpu in words", "spec.head.resources.cpu", "half", QUANTITY),
    Bad("GPU without a domain", "spec.resources.gpu.resourceName", "gpu", EXTENDED),
    Bad("GPU of Kubernetes' own", "spec.resources.gpu.resourceName", "kubernetes.io/gpu", "belong to Kubernetes"),
    Bad(
        "GPU as a quota names it", "spec.resources.gpu.resourceName", "requests.nvidia.com/gpu", "belong to Kubernetes"
    ),
    Bad("GPU as a number", "spec.resources.gpu", 1, 'must be of type object: "integer"'),
    # autoscaling
    Bad("no maximum", SCALING, {"minReplicas": 1}, "spec.autoscaling.maxReplicas: Required value"),
    Bad("a maximum of none", SCALING, {"maxReplicas": 0}, "should be greater than or equal to 1"),
    Bad("a maximum beyond all", SCALING, {"maxReplicas": 257}, "should be less than or equal to 256"),
    Bad(
        "a minimum above the maximum",
        SCALING,
        {"minReplicas": 3, "maxReplicas": 2},
        "minReplicas is above maxReplicas: lower it, or raise maxReplicas",
    ),
    Bad("a minimum below none", SCALING, {"minReplicas": -1, "maxReplicas": 2}, "greater than or equal to 0"),
    Bad("no patience", SCALING, {"maxReplicas": 2, "queueTimeTargetMs": 0}, "greater than or equal to 10"),
    Bad("an hour's patience", SCALING, {"maxReplicas": 2, "queueTimeTargetMs": 3_600_000}, "less than or equal to"),
    Bad("zero at once", SCALING, {"maxReplicas": 2, "scaleToZeroAfterSeconds": 0}, "greater than or equal to 1"),
    Bad(
        "a rate of none",
        SCALING,
        {"maxReplicas": 2, "scaleUp": {"replicas": 0, "periodSeconds": 60}},
        "spec.autoscaling.scaleUp.replicas in body should be greater than or equal to 1",
    ),
    Bad(
        "a rate without a time",
        SCALING,
        {"maxReplicas": 2, "scaleDown": {"replicas": 1}},
        "spec.autoscaling.scaleDown.periodSeconds: Required value",
    ),
    Bad(
        "a rate in no time",
        SCALING,
        {"maxReplicas": 2, "scaleDown": {"replicas": 1, "periodSeconds": 0}},
        "should be greater than or equal to 1",
    ),
    Bad(
        "a rate as a percentage",
        SCALING,
        {"maxReplicas": 2, "scaleUp": {"replicas": "50%", "periodSeconds": 60}},
        'must be of type integer: "string"',
    ),
    Bad("keep in words", SCALING, {"maxReplicas": 2, "keepHead": "yes"}, 'must be of type boolean: "string"'),
    Bad("misspelt bound", SCALING, {"maxReplicas": 2, "minReplica": 1}, 'unknown field "spec.autoscaling.minReplica"'),
    Bad(
        "a scheduled minimum above the maximum",
        SCALING,
        _scheduled(minReplicas=9),
        "a schedule's minReplicas is above maxReplicas: lower it, or raise maxReplicas",
    ),
    Bad("a schedule without an end", SCALING, _scheduled(end=None), "schedule[0].end: "),
    Bad("a schedule without a minimum", SCALING, _scheduled(minReplicas=None), "schedule[0].minReplicas: "),
    Bad("seventeen schedules", SCALING, {"maxReplicas": 8, "schedule": _scheduled()["schedule"] * 17}, "at most 16"),
    *(
        Bad(f"cron: {case}", SCALING, _moment(start), sentence)
        for case, start, sentence in [
            ("four fields", "0 8 * *", "should be at least 9 chars long"),
            ("six fields", "0 0 8 * * *", FIVE_FIELDS),
            ("a macro", "@weekdays", FIVE_FIELDS),
            ("two spaces", "0  8 * * *", FIVE_FIELDS),
            ("minute 60", "60 8 * * *", FIVE_FIELDS),
            ("hour 24", "0 24 * * *", FIVE_FIELDS),
            ("day 0", "0 8 0 * *", FIVE_FIELDS),
            ("day 32", "0 8 32 * *", FIVE_FIELDS),
            ("month 13", "0 8 * 13 *", FIVE_FIELDS),
            ("weekday 8", "0 8 * * 8", FIVE_FIELDS),
            ("a weekday in full", "0 8 * * Monday", FIVE_FIELDS),
            ("small letters", "0 8 * * mon", FIVE_FIELDS),
            ("a day where a month stands", "0 8 * MON *", FIVE_FIELDS),
            ("a range of a number and a name", "0 8 * * 1-FRI", FIVE_FIELDS),
            ("a step of none", "*/0 8 * * *", FIVE_FIELDS),
            ("a list that ends in a comma", "0, 8 * * *", FIVE_FIELDS),
            ("the last of a month", "0 8 L * *", FIVE_FIELDS),
            ("a question mark", "0 8 ? * *", FIVE_FIELDS),
            ("a time zone in it", "TZ=UTC 0 8 * * *", FIVE_FIELDS),
            ("hours backwards", "0 18-8 * * *", RISING),
            ("days backwards", "0 8 * * FRI-MON", RISING),
            ("months backwards", "0 8 * NOV-FEB *", RISING),
            ("the second range backwards", "0 8-9,7-6 * * *", RISING),
        ]
    ),
    *(
        Bad(f"time zone: {zone}", SCALING, _scheduled(timeZone=zone), ZONE)
        for zone in ["Europe/Berlyn", "CET+1", "+02:00", "02:00", "Local", "berlin", "GMT+2"]
    ),
    Bad("no time zone", SCALING, _scheduled(timeZone=""), "should be at least 1 chars long"),
    # scheduling
    Bad("node label key", "spec.scheduling.nodeSelector", {"a b": "c"}, LABEL_KEY),
    Bad("node label value", "spec.scheduling.nodeSelector", {"a": "c d"}, LABEL_VALUE),
    Bad("node label of a number", "spec.scheduling.nodeSelector", {"a": 1}, 'must be of type string: "integer"'),
    Bad(
        "too many node labels",
        "spec.scheduling.nodeSelector",
        {f"a{i}": "b" for i in range(33)},
        "must have at most 32 items",
    ),
    Bad(
        "toleration of everything by mistake",
        "spec.scheduling.tolerations",
        [{"effect": "NoSchedule"}],
        "without a key",
    ),
    Bad(
        "toleration with a value that is not read",
        "spec.scheduling.tolerations",
        [{"key": "a", "operator": "Exists", "value": "b"}],
        "operator Exists takes no value",
    ),
    Bad(
        "toleration seconds without NoExecute",
        "spec.scheduling.tolerations",
        [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}],
        "tolerationSeconds goes with effect NoExecute only",
    ),
    Bad(
        "toleration of an unknown effect",
        "spec.scheduling.tolerations",
        [{"key": "a", "operator": "Exists", "effect": "Never"}],
        'supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"',
    ),
    Bad(
        "spread without a topology key",
        "spec.scheduling.topologySpreadConstraints",
        [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
        "topologyKey: Required value",
    ),
    Bad(
        "spread twice over one key",
        "spec.scheduling.topologySpreadConstraints",
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}] * 2,
        "Duplicate value",
    ),
    Bad(
        "spread by domains that only prefers",
        "spec.scheduling.topologySpreadConstraints",
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}],
        "minDomains goes with whenUnsatisfiable DoNotSchedule only",
    ),
    Bad(
        "spread without skew",
        "spec.scheduling.topologySpreadConstraints",
        [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "should be greater than or equal to 1",
    ),
    Bad(
        "misspelt affinity", "spec.scheduling.affinity", {"nodeAfinity": {}}, 'unknown field "spec.scheduling.affinity'
    ),
    Bad("priority class", "spec.scheduling.priorityClassName", "Very High", OBJECT_NAME),
    Bad("scheduler", "spec.scheduling.schedulerName", "my_scheduler", OBJECT_NAME),
    Bad("runtime class", "spec.scheduling.runtimeClassName", "nvidia/cuda", OBJECT_NAME),
    Bad("storage class", "spec.head.storageClassName", "Fast!", OBJECT_NAME),
    # worker
    Bad("label of ours", "spec.worker.labels", {"serving.aixcoder.io/unit": "x"}, OURS),
    Bad("label of the application", "spec.worker.labels", {"app.kubernetes.io/name": "x"}, OURS),
    Bad("annotation of ours", "spec.worker.annotations", {"serving.aixcoder.io/applied": "x"}, OURS),
    Bad("worker label value", "spec.worker.labels", {"a": "-"}, LABEL_VALUE),
    Bad("variable of Ray", "spec.worker.env", [{"name": "RAY_AUTH_MODE", "value": "off"}], "choose another name: RAY_"),
    Bad("variable of ours", "spec.worker.env", [{"name": "AIXCODER_UNIT", "value": "x"}], "choose another name: RAY_"),
    Bad("variable that is there", "spec.worker.env", [{"name": "POD_IP", "value": "x"}], "choose another name: RAY_"),
    Bad("search path", "spec.worker.env", [{"name": "PYTHONPATH", "value": "/x"}], "choose another name: RAY_"),
    Bad("variable name", "spec.worker.env", [{"name": "7-up", "value": "x"}], "write a variable name of letters"),
    Bad(
        "two values of one variable",
        "spec.worker.env",
        [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "give value or valueFrom, not both",
    ),
    Bad(
        "variable twice",
        "spec.worker.env",
        [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "Duplicate value",
    ),
    Bad("volume of ours", "spec.worker.volumes", [{"name": "aixcoder-model", "emptyDir": {}}], "choose another name"),
    Bad("volume name", "spec.worker.volumes", [{"name": "My_Volume", "emptyDir": {}}], VOLUME_NAME),
    Bad("volume of nothing", "spec.worker.volumes", [{"name": "v"}], "give the volume exactly one source: configMap,"),
    Bad(
        "volume of two sources",
        "spec.worker.volumes",
        [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}],
        "give the volume exactly one source: configMap,",
    ),
    Bad(
        "volume of a misspelt source",
        "spec.worker.volumes",
        [{"name": "v", "emptydir": {}}],
        'unknown field "spec.worker',
    ),
    Bad(
        "variable from nowhere",
        "spec.worker.env",
        [{"name": "A", "valueFrom": {}}],
        "give exactly one of secretKeyRef, configMapKeyRef, fieldRef and resourceFieldRef",
    ),
    Bad(
        "annotation of the controller",
        "spec.worker.annotations",
        {"controller.kubernetes.io/pod-deletion-cost": "1"},
        OURS,
    ),
    Bad("volume without name", "spec.worker.volumes", [{"emptyDir": {}}], "name: Required value"),
    Bad("mount of no volume", "spec.worker.volumeMounts", [{"name": "v", "mountPath": "/mnt"}], "add the volume"),
    Bad("mount over the model", "spec.worker", _mounted("/models"), MOUNT_ELSEWHERE),
    Bad("mount beneath the model", "spec.worker", _mounted("/models/x"), MOUNT_ELSEWHERE),
    Bad("mount over shared memory", "spec.worker", _mounted("/dev/shm"), MOUNT_ELSEWHERE),
    Bad("mount over the root", "spec.worker", _mounted("/"), MOUNT_ELSEWHERE),
    Bad("mount above our code", "spec.worker", _mounted("/opt"), MOUNT_ELSEWHERE),
    Bad("mount above our token", "spec.worker", _mounted("/var/run"), MOUNT_ELSEWHERE),
    Bad("mount with a slash at the end", "spec.worker", _mounted("/models/"), ABSOLUTE),
    Bad("mount with an empty part", "spec.worker", _mounted("//models"), ABSOLUTE),
    Bad("relative mount", "spec.worker", _mounted("mnt/x"), ABSOLUTE),
    Bad("mount that climbs", "spec.worker", _mounted("/mnt/../models"), ABSOLUTE),
    Bad("pull secret", "spec.worker.imagePullSecrets", [{"name": "not a name"}], OBJECT_NAME),
    # completion, rollout, and what is not there
    Bad("no tokens", "spec.completion.maxTokens", 0, "should be greater than or equal to 1"),
    Bad("temperature below 0", "spec.completion.temperature", -0.1, "should be greater than or equal to 0"),
    Bad("temperature of 3", "spec.completion.temperature", 3, "should be less than or equal to 2"),
    Bad("no time to progress", "spec.rollout.progressDeadlineSeconds", 0, "should be greater than or equal to 1"),
    Bad(
        "a year to schedule",
        "spec.rollout.schedulingDeadlineSeconds",
        31536000,
        "should be less than or equal to 604800",
    ),
    Bad("history below nothing", "spec.rollout.revisionHistoryLimit", -1, "should be greater than or equal to 0"),
    Bad("suspend in words", "spec.suspend", "yes", 'must be of type boolean: "string"'),
    Bad("misspelt field", "spec.replica", 2, 'unknown field "spec.replica"'),
    Bad("field of a later version", "spec.disruption", {"onCordon": "Surge"}, 'unknown field "spec.disruption"'),
]


@pytest.mark.parametrize("bad", BAD, ids=[bad.case for bad in BAD])
def test_refused(kubectl_default: Kubectl, bad: Bad) -> None:
    refusal = kubectl_default.refusal(changed(minimal(), bad.path, bad.value))
    assert bad.sentence in refusal


def test_the_table_changes_one_thing(kubectl_default: Kubectl) -> None:
    assert kubectl_default.refusal(minimal()) == ""


def test_a_number_beside_autoscaling(kubectl_default: Kubectl) -> None:
    resource = changed(changed(minimal(), "spec.autoscaling", {"maxReplicas": 2}), "spec.replicas", 2)
    assert (
        "replicas and autoscaling exclude each other: remove replicas to let the operator choose their number (its "
        "bounds are autoscaling.minReplicas and maxReplicas), or remove autoscaling to set it yourself"
    ) in kubectl_default.refusal(resource)


def test_one_report_names_every_mistake(kubectl_default: Kubectl) -> None:
    bad = changed(changed(minimal(), "spec.replicas", -1), "spec.engine.tensorParallelSize", 3)
    refusal = kubectl_default.refusal(bad)
    assert "spec.replicas: Invalid value: -1" in refusal
    assert "spec.engine.tensorParallelSize: Unsupported value: 3" in refusal
