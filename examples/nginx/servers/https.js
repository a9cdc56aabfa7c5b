// SPDX-License-Identifier: MIT
// An HTTPS server: https.js FOLDER PORT CERTIFICATE KEY
'use strict';
const fs = require('fs');
const https = require('https');
const path = require('path');

const [folder, port, ...files] = process.argv.slice(2);
const [cert, key] = files.map((file) => fs.readFileSync(file));
const server = https.createServer({ cert, key }, (request, response) => {
	const body = fs.readFileSync(path.join(folder, path.basename(request.url)));
	response.writeHead(200, { 'Content-Length': body.length });
	response.end(body);
});
server.keepAliveTimeout = 3600000;
server.listen(Number(port), '127.0.0.1');
