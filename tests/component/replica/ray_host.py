"""A one-node Ray with the application on it, in a process of its own: Ray leaves much behind in the one it runs in.

Arguments: the folder for Ray's files, then the replica's settings as JSON. Says `running` when Serve says so; ends
after its standard input does, with the application deleted as a scale-down would.
"""

import sys

import ray
from ray import serve

from aixcoder_serving.protocol import ReplicaSettings
from aixcoder_serving.replica.application import build


def main() -> None:
    folder, settings = sys.argv[1], ReplicaSettings.model_validate_json(sys.argv[2])
    ray.init(num_cpus=0, resources={"replica": 1}, include_dashboard=False, _temp_dir=folder, log_to_driver=True)
    serve.start(proxy_location="Disabled")
    serve.run(build(settings.model_dump()), name="completion", route_prefix=None)
    print("running", flush=True)
    sys.stdin.read()
    serve.delete("completion")
    print("deleted", flush=True)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
