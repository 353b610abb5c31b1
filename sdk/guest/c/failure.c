#include "arena.h"
#include "failure.h"
#include "text.h"

/* Bounds of error-reply in the contract. */
#define CODE_BYTES_MAX 64u
#define MESSAGE_BYTES_MAX 1024u

/* Not in the arena: running out of memory must still be reported. */
static char code_kept[CODE_BYTES_MAX];
static char message_kept[MESSAGE_BYTES_MAX];
static uint32_t code_len, message_len;

static void keep_code(sc_text code) {
    code_len = code.len < CODE_BYTES_MAX ? code.len : CODE_BYTES_MAX;
    sc_copy(code_kept, code.at, code_len);
}

sc_status sc_fail(const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    message_len = sc_format_into(message_kept, sizeof message_kept, format, arguments);
    va_end(arguments);
    keep_code(sc_text_of(code));
    return SC_FAILED;
}

void sc_failure_clear(void) {
    code_len = message_len = 0;
}

ErrorReply sc_failure(void) {
    ErrorReply reply = { .code = { code_kept, code_len }, .message = { message_kept, message_len } };
    /* A hook that fails without sc_fail still has to say something. */
    if (code_len == 0) reply.code = sc_text_of("failed");
    return reply;
}

void sc_failure_adopt(const ErrorReply *reply) {
    keep_code(reply->code);
    message_len = reply->message.len < MESSAGE_BYTES_MAX ? reply->message.len : MESSAGE_BYTES_MAX;
    sc_copy(message_kept, reply->message.at, message_len);
}
