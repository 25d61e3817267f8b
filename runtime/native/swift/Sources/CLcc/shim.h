#include "../../../include/lcc.h"
