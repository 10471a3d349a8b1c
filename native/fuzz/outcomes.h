// One run of the target, for drivers that want to know how it ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mobilemoe::fuzz {

// "accepted", or the message of the refusal. Aborts on a finding.
std::string run(const uint8_t* data, size_t size);

}  // namespace mobilemoe::fuzz
