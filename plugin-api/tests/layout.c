/* The layout of every struct of the ABI, stated once more and apart from the header and from Rust: a change
 * in either fails here. Compiled as C11 by tests/header.rs; there is nothing to run. */
#include <stddef.h>

#include "warren_plugin.h"

#define SIZE(type, size)                                                       \
    _Static_assert(sizeof(type) == (size), "size of " #type);                 \
    _Static_assert(_Alignof(type) == 8, "alignment of " #type)
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), "offset of " #type "." #field)

SIZE(warren_bytes, 16);
AT(warren_bytes, ptr, 0);
AT(warren_bytes, len, 8);

SIZE(warren_field, 32);
AT(warren_field, key, 0);
AT(warren_field, value, 16);

SIZE(struct warren_host, 24);
AT(struct warren_host, struct_size, 0);
AT(struct warren_host, abi_major, 4);
AT(struct warren_host, abi_minor, 6);
AT(struct warren_host, ctx, 8);
AT(struct warren_host, log, 16);

SIZE(struct warren_call, 64);
AT(struct warren_call, struct_size, 0);
AT(struct warren_call, cancel_fd, 4);
AT(struct warren_call, ctx, 8);
AT(struct warren_call, deadline_ns, 16);
AT(struct warren_call, cancelled, 24);
AT(struct warren_call, progress, 32);
AT(struct warren_call, set_result, 40);
AT(struct warren_call, set_error, 48);
AT(struct warren_call, publish, 56);

SIZE(struct warren_message, 120);
AT(struct warren_message, struct_size, 0);
AT(struct warren_message, n_headers, 4);
AT(struct warren_message, id, 8);
AT(struct warren_message, queue, 24);
AT(struct warren_message, type, 40);
AT(struct warren_message, content_type, 56);
AT(struct warren_message, body, 72);
AT(struct warren_message, headers, 88);
AT(struct warren_message, delay_ms, 96);
AT(struct warren_message, expires_ms, 104);
AT(struct warren_message, priority, 112);
AT(struct warren_message, reserved, 116);

SIZE(struct warren_task, 120);
AT(struct warren_task, struct_size, 0);
AT(struct warren_task, attempt, 4);
AT(struct warren_task, flags, 8);
AT(struct warren_task, n_headers, 12);
AT(struct warren_task, id, 16);
AT(struct warren_task, queue, 32);
AT(struct warren_task, prefix, 48);
AT(struct warren_task, argument, 64);
AT(struct warren_task, content_type, 80);
AT(struct warren_task, body, 96);
AT(struct warren_task, headers, 112);

SIZE(struct warren_plugin, 48);
AT(struct warren_plugin, magic, 0);
AT(struct warren_plugin, struct_size, 4);
AT(struct warren_plugin, abi_major, 8);
AT(struct warren_plugin, abi_minor, 10);
AT(struct warren_plugin, flags, 12);
AT(struct warren_plugin, create, 16);
AT(struct warren_plugin, handle, 24);
AT(struct warren_plugin, quiesce, 32);
AT(struct warren_plugin, destroy, 40);

_Static_assert(sizeof(void *) == 8 && sizeof(size_t) == 8 && sizeof(long) == 8, "LP64");
