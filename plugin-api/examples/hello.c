/* A whole handler in C: greets whom the task names. The header alone is enough:
 *
 *   cc -std=c99 -Wall -Wextra -O2 -fPIC -shared -fvisibility=hidden -I plugin-api/include \
 *      plugin-api/examples/hello.c -o hello.so
 *   warrenctl plugin check hello.so
 *   warrenctl plugin run hello.so "Say hello to Ada"
 */
#include <stdio.h>
#include <stdlib.h>

#include "warren_plugin.h"

WARREN_MANIFEST("{\"name\":\"hello\",\"version\":\"1.0.0\",\"abi\":{\"major\":1,\"minor\":0},"
                "\"prefixes\":[\"Say hello to\"],\"timeout\":\"10s\",\"settings\":[]}");

struct hello {
    const struct warren_host *host;
    unsigned greeted;
};

static int32_t create(const struct warren_host *host, warren_bytes settings_json, const struct warren_call *call,
                      void **instance) {
    struct hello *hello;
    if (!warren_is(settings_json, "{}")) {
        call->set_error(call->ctx, warren_text("bad-settings"), warren_text("this handler has no settings"), 0);
        return WARREN_REJECT;
    }
    hello = (struct hello *)calloc(1, sizeof *hello);
    if (hello == NULL) {
        call->set_error(call->ctx, warren_text("no-memory"), warren_text("out of memory"), 0);
        return WARREN_RETRY;
    }
    hello->host = host;
    *instance = hello;
    return WARREN_DONE;
}

static int32_t handle(void *instance, const struct warren_task *task, const struct warren_call *call) {
    struct hello *hello = (struct hello *)instance;
    warren_field field;
    char greeting[256];
    if (task->argument.len == 0) {
        call->set_error(call->ctx, warren_text("no-name"), warren_text("say whom to greet: Say hello to NAME"), 0);
        return WARREN_REJECT;
    }
    if (call->cancelled(call->ctx)) {
        return WARREN_CANCELLED;
    }
    snprintf(greeting, sizeof greeting, "Hello, %.*s!", (int)task->argument.len, (const char *)task->argument.ptr);
    hello->greeted++;

    field.key = warren_text("name");
    field.value = task->argument;
    hello->host->log(hello->host->ctx, WARREN_LOG_INFO, warren_text("greeted"), &field, 1);
    call->set_result(call->ctx, warren_text("text/plain"), warren_text(greeting));
    return WARREN_DONE;
}

static void destroy(void *instance) {
    free(instance);
}

static const struct warren_plugin plugin = {WARREN_PLUGIN_HEAD, create, handle, NULL, destroy};

const struct warren_plugin *warren_plugin_v1(void) {
    return &plugin;
}
