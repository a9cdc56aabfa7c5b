/* SPDX-License-Identifier: MIT */
#ifndef LEAK_STOPS_H
#define LEAK_STOPS_H

/*
 * From now on the server waits after each of libssl's operations on a secret: it sends a byte
 * to @fd and goes on when it gets one.  Ends when the other end is closed.
 */
void stops_begin(int fd);

#endif /* LEAK_STOPS_H */
