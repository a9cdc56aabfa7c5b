# SPDX-License-Identifier: MIT
"""An HTTP server, with TLS if it is told a certificate: plain.py FOLDER PORT [CERTIFICATE KEY]"""

import functools
import http.server
import os
import signal
import ssl
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


folder, port, *certificate = sys.argv[1:]
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), functools.partial(Handler, directory=folder))
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if "TLS_MAX" in os.environ:
        context.maximum_version = ssl.TLSVersion[os.environ["TLS_MAX"]]
    server.socket = context.wrap_socket(server.socket, server_side=True)
# Another process takes over the port: what a daemon's reload may be.
signal.signal(signal.SIGUSR1, lambda *_: os.fork() and os._exit(0))
server.serve_forever()
