"""Certificates of a test cluster, made by the `openssl` program: P-256 keys, valid for 30 days."""

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import NotAvailableError

_DAYS = "30"
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its key, both PEM."""

    certificate: Path
    key: Path


def extensions(*, dns: Sequence[str] = (), ips: Sequence[str] = ()) -> str:
    """OpenSSL's extension lines: a server's where there are names, else a client's."""
    names = [f"DNS:{name}" for name in dns] + [f"IP:{ip}" for ip in ips]
    if not names:
        return "extendedKeyUsage=clientAuth\n"
    return f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(names)}\n"


class Authority:
    """A certificate authority in a folder. What exists already is used as it is."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            raise NotAvailableError("The program openssl is missing; install it (Debian: apt-get install openssl).")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        if not self.certificate.exists():
            self._openssl("req", "-x509", *_CURVE, "-days", _DAYS, "-subj", "/CN=aixcoder-local-ca",
                          "-keyout", self._key, "-out", self.certificate)  # fmt: skip

    def issue(
        self, name: str, *, user: str, group: str = "", dns: Sequence[str] = (), ips: Sequence[str] = ()
    ) -> Certificate:
        """A certificate with CN `user` and O `group`: for a server where it has names, else for a client."""
        made = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if made.certificate.exists():
            return made
        request, extension = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extension.write_text(extensions(dns=dns, ips=ips))
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        self._openssl("req", *_CURVE, "-subj", subject, "-keyout", made.key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
                      "-days", _DAYS, "-extfile", extension, "-out", made.certificate)  # fmt: skip
        request.unlink()
        extension.unlink()
        return made

    def service_account_keys(self) -> Certificate:
        """The pair that signs and checks service account tokens; `certificate` is the public key."""
        pair = Certificate(self.folder / "sa.pub", self.folder / "sa.key")
        if not pair.certificate.exists():
            self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", pair.key)
            self._openssl("pkey", "-in", pair.key, "-pubout", "-out", pair.certificate)
        return pair

    def kubeconfig(self, path: Path, *, server: str, user: Certificate) -> Path:
        """Write a kubeconfig with everything inline, so that the file can be copied elsewhere."""

        def inline(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        cluster = {"server": server, "certificate-authority-data": inline(self.certificate)}
        keys = {"client-certificate-data": inline(user.certificate), "client-key-data": inline(user.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "aixcoder", "cluster": cluster}],
            "users": [{"name": "aixcoder", "user": keys}],
            "contexts": [{"name": "aixcoder", "context": {"cluster": "aixcoder", "user": "aixcoder"}}],
            "current-context": "aixcoder",
        }
        # JSON is YAML; the file holds a key, so nobody else reads it.
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))
        return path

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
