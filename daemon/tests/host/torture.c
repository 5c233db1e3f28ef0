/* A handler that does, well or badly, what the task's argument says. Compiled by the tests with cc from the header alone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "warren_plugin.h"

WARREN_MANIFEST("{\"name\":\"torture\",\"version\":\"1.0.0\",\"abi\":{\"major\":1,\"minor\":0},"
                "\"prefixes\":[\"Torture\"],\"settings\":[\"create\"]}");

static const struct warren_host *the_host;
static int *volatile nowhere;

static void say(const struct warren_call *call, const char *text) {
    call->set_result(call->ctx, warren_text("text/plain"), warren_text(text));
}

static int32_t create(const struct warren_host *host, warren_bytes settings, const struct warren_call *call,
                      void **instance) {
    static int made;
    the_host = host;
    if (warren_is(settings, "{\"create\":\"fail\"}")) {
        call->set_error(call->ctx, warren_text("no-directory"), warren_text("/nowhere is not there"), 0);
        return WARREN_REJECT;
    }
    if (warren_is(settings, "{\"create\":\"hang\"}")) {
        for (;;) pause();
    }
    if (warren_is(settings, "{\"create\":\"crash\"}")) {
        fprintf(stderr, "about to crash\n");
        *nowhere = 1;
    }
    if (warren_is(settings, "{\"create\":\"exit\"}")) exit(0);
    if (warren_is(settings, "{\"create\":\"publish\"}")) {
        struct warren_message message = {.struct_size = sizeof message, .priority = -1};
        call->publish(call->ctx, &message);
    }
    if (warren_is(settings, "{\"create\":\"null\"}")) return WARREN_DONE;
    *instance = &made;
    return WARREN_DONE;
}

static int overflow(int depth) {
    volatile char frame[4096];
    frame[0] = (char)depth;
    return depth < 0 ? 0 : overflow(depth + 1) + frame[0];
}

static void leave_child(int new_session) {
    if (fork() == 0) {
        if (new_session) setsid();
        signal(SIGTERM, SIG_IGN);
        if (fork() == 0) { for (;;) pause(); }
        for (;;) pause();
    }
}

static void print(size_t bytes) {
    char line[1024];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (; bytes >= sizeof line; bytes -= sizeof line) fwrite(line, 1, sizeof line, stdout);
}

static int32_t publish(const struct warren_call *call, int n, size_t body_size) {
    struct warren_message message = {.struct_size = sizeof message, .priority = -1, .delay_ms = 1500};
    warren_field header = {warren_text("colour"), warren_text("blue")};
    uint8_t *body = calloc(1, body_size + 1);
    int32_t code = WARREN_PUBLISH_OK;
    memset(body, 'b', body_size);
    message.queue = warren_text("other");
    message.body.ptr = body;
    message.body.len = body_size;
    message.headers = &header;
    message.n_headers = 1;
    while (n-- > 0 && code == WARREN_PUBLISH_OK) code = call->publish(call->ctx, &message);
    free(body);
    return code;
}

static int32_t wait_for_cancel(const struct warren_call *call) {
    struct pollfd fd = {.fd = call->cancel_fd, .events = POLLIN};
    while (!call->cancelled(call->ctx)) poll(&fd, 1, -1);
    /* Both ways of asking must agree, and go on doing so. */
    return poll(&fd, 1, 0) == 1 ? WARREN_CANCELLED : WARREN_FAULT;
}

static int32_t tell(const struct warren_task *task, const struct warren_call *call) {
    char text[512];
    snprintf(text, sizeof text, "%.*s %.*s %u %u %u %.*s=%.*s %d", (int)task->id.len, task->id.ptr,
             (int)task->queue.len, task->queue.ptr, task->attempt, task->flags, task->n_headers,
             task->n_headers ? (int)task->headers[0].key.len : 0, task->n_headers ? task->headers[0].key.ptr : NULL,
             task->n_headers ? (int)task->headers[0].value.len : 0,
             task->n_headers ? task->headers[0].value.ptr : NULL, call->deadline_ns != 0);
    say(call, text);
    return WARREN_DONE;
}

static int32_t surroundings(const struct warren_call *call) {
    char text[1024], name[17] = "", ignored[256] = "";
    struct sigaction action;
    int fd, number, open_fds = 0;
    for (number = 1; number <= SIGRTMAX; number++)
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            sprintf(ignored + strlen(ignored), " %d", number);
    for (fd = 3; fd < 100; fd++) open_fds += fcntl(fd, F_GETFD) != -1;
    prctl(PR_GET_NAME, name);
    snprintf(text, sizeof text, "name=%s fds=%d new_privs=%d secret=%s path=%d group=%d tty=%d ignored=%s", name, open_fds,
             prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), getenv("CARGO_MANIFEST_DIR") ? "leaked" : "none",
             getenv("PATH") != NULL, getpgid(0) == getpid(), isatty(0), ignored);
    say(call, text);
    return WARREN_DONE;
}

static int32_t handle(void *instance, const struct warren_task *task, const struct warren_call *call) {
    char arg[64];
    long number;
    (void)instance;
    snprintf(arg, sizeof arg, "%.*s", (int)task->argument.len, (const char *)task->argument.ptr);
    if (strcmp(arg, "done") == 0) return WARREN_DONE;
    if (strcmp(arg, "retry") == 0) {
        call->set_error(call->ctx, warren_text("busy"), warren_text("come back later"), 1500);
        return WARREN_RETRY;
    }
    if (strcmp(arg, "reject") == 0) {
        call->set_error(call->ctx, warren_text("bad"), warren_text("n\xff" "o"), 0);
        return WARREN_REJECT;
    }
    if (strcmp(arg, "tell") == 0) return tell(task, call);
    if (strcmp(arg, "surroundings") == 0) return surroundings(call);
    if (strcmp(arg, "cancelled") == 0) return WARREN_CANCELLED;
    if (strcmp(arg, "wait") == 0) {
        call->progress(call->ctx, 1, warren_text("waiting"));
        return wait_for_cancel(call);
    }
    if (strcmp(arg, "spin") == 0) {
        call->progress(call->ctx, 1, warren_text("spinning"));
        for (;;) (void)call->cancelled(call->ctx);
    }
    if (strcmp(arg, "segv") == 0) *nowhere = 1;
    if (strcmp(arg, "abort") == 0) abort();
    if (strcmp(arg, "overflow") == 0) return overflow(0);
    if (strcmp(arg, "closefds") == 0) {
        for (number = 3; number < 1024; number++) close((int)number);
        return WARREN_DONE;
    }
    if (strcmp(arg, "garbage") == 0) {
        /* What a wild write through a descriptor number could do. */
        for (number = 100; number < 120; number++)
            if (write((int)number, "\xff\xff\xff\xff garbage", 12) == 12) continue;
        return WARREN_DONE;
    }
    if (strcmp(arg, "child") == 0 || strcmp(arg, "child-crash") == 0) {
        leave_child(0);
        leave_child(1);
        if (arg[5] != 0) abort();
        return WARREN_DONE;
    }
    if (strcmp(arg, "log") == 0) {
        warren_field field = {warren_text("size"), warren_text("large")};
        the_host->log(the_host->ctx, WARREN_LOG_INFO, warren_text("a line"), &field, 1);
        return WARREN_DONE;
    }
    if (sscanf(arg, "fields %ld", &number) == 1) {
        /* A negative length: as long as it is, but no UTF-8. */
        static char key[1024], value[2000];
        warren_field fields[40];
        int i;
        memset(key, number < 0 ? '\xff' : 'k', sizeof key);
        memset(value, 'v', sizeof value);
        for (i = 0; i < 40; i++) {
            fields[i].key.ptr = (const uint8_t *)key;
            fields[i].key.len = (size_t)labs(number);
            fields[i].value.ptr = (const uint8_t *)value;
            fields[i].value.len = i == 0 ? sizeof value : 20;
        }
        the_host->log(the_host->ctx, 99, warren_text("many fields"), fields, 40);
        return WARREN_DONE;
    }
    if (strcmp(arg, "long error") == 0) {
        static char text[20000];
        memset(text, '\xff', sizeof text);
        warren_bytes long_text = {(const uint8_t *)text, sizeof text};
        call->set_error(call->ctx, long_text, long_text, -1);
        return WARREN_RETRY;
    }
    if (strcmp(arg, "late") == 0) {
        struct warren_message message = {.struct_size = sizeof message, .priority = -1};
        int32_t invalid;
        message.delay_ms = -1;
        invalid = call->publish(call->ctx, &message);
        say(call, invalid == WARREN_PUBLISH_INVALID ? "invalid" : "taken");
        return WARREN_DONE;
    }
    if (strcmp(arg, "partial") == 0) {
        printf("no newline");
        return WARREN_DONE;
    }
    if (sscanf(arg, "exit %ld", &number) == 1) exit((int)number);
    if (sscanf(arg, "status %ld", &number) == 1) return (int32_t)number;
    if (sscanf(arg, "print %ld", &number) == 1) {
        print((size_t)number);
        return WARREN_DONE;
    }
    if (sscanf(arg, "publish %ld", &number) == 1) {
        publish(call, (int)number, 10);
        return WARREN_DONE;
    }
    if (sscanf(arg, "publish-large %ld", &number) == 1) {
        publish(call, 1, (size_t)number);
        return WARREN_DONE;
    }
    if (sscanf(arg, "type %ld", &number) == 1) {
        char type[1024] = "text/html; name=";
        memset(type + strlen(type), 'x', sizeof type - 1 - strlen(type));
        /* A negative length: as long as it is, but no UTF-8. */
        if (number < 0) type[12] = '\xff';
        warren_bytes long_type = {(const uint8_t *)type, (size_t)labs(number)};
        call->set_result(call->ctx, long_type, warren_text("an answer"));
        return WARREN_DONE;
    }
    if (sscanf(arg, "words %ld", &number) == 1) {
        char word[1024];
        memset(word, 'w', sizeof word);
        warren_bytes long_word = {(const uint8_t *)word, (size_t)number};
        warren_field field = {long_word, warren_text("x")};
        struct warren_message queue = {.struct_size = sizeof queue, .priority = -1, .queue = long_word};
        struct warren_message kind = {.struct_size = sizeof kind, .priority = -1, .type = long_word};
        struct warren_message header = {.struct_size = sizeof header, .priority = -1, .n_headers = 1, .headers = &field};
        struct warren_message answer = {.struct_size = sizeof answer, .priority = -1, .content_type = long_word, .id = long_word};
        char codes[16];
        snprintf(codes, sizeof codes, "%d%d%d%d", call->publish(call->ctx, &queue), call->publish(call->ctx, &kind),
                 call->publish(call->ctx, &header), call->publish(call->ctx, &answer));
        say(call, codes);
        return WARREN_DONE;
    }
    if (sscanf(arg, "result %ld", &number) == 1) {
        char *body = calloc(1, (size_t)number + 1);
        memset(body, 'r', (size_t)number);
        say(call, body);
        free(body);
        return WARREN_DONE;
    }
    return WARREN_FAULT;
}

static int32_t quiesce(void *instance, const struct warren_call *call) {
    (void)instance, (void)call;
    printf("quiesced\n");
    return WARREN_DONE;
}

static void destroy(void *instance) {
    (void)instance;
    printf("destroyed\n");
}

static const struct warren_plugin plugin = {WARREN_PLUGIN_HEAD, create, handle, quiesce, destroy};

const struct warren_plugin *warren_plugin_v1(void) { return &plugin; }
