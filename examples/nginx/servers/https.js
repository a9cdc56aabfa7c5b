// SPDX-License-Identifier: MIT
// An HTTPS server: https.js FOLDER PORT CERTIFICATE-AND-KEY
'use strict';
const fs = require('fs');
const https = require('https');
const path = require('path');

const [folder, port, certificate] = process.argv.slice(2);
const pem = fs.readFileSync(certificate);
const server = https.createServer({ cert: pem, key: pem }, (request, response) => {
	const body = fs.readFileSync(path.join(folder, path.basename(request.url)));
	response.writeHead(200, { 'Content-Length': body.length });
	response.end(body);
});
server.keepAliveTimeout = 3600000;
server.listen(Number(port), '127.0.0.1');
