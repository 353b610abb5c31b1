/* What went wrong in a call, kept until the error reply is written. */

#ifndef SC_FAILURE_H
#define SC_FAILURE_H

#include "contract.h"

typedef enum { SC_OK, SC_FAILED } sc_status;

/* Ends a hook with an error reply: `return sc_fail("bad_assay", "moisture is %g; ...", w);`. `code` is lower_snake_case,
 * at most 64 bytes; a message that is too long is cut. The format is that of sc_format. */
sc_status sc_fail(const char *code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forgets what failed before. */
void sc_failure_clear(void);
/* The last failure. Text in it is valid until the next one. */
ErrorReply sc_failure(void);
/* Takes over an error reply of a driver, as the skill's own. */
void sc_failure_adopt(const ErrorReply *reply);

#endif
