# A file whose name ends in _avx512.cpp or _avx2.cpp is compiled for that instruction set; everything else is portable.
# Such files keep all their code in a namespace of their own, so that no inline function leaks into portable code.
function(set_isa_flags)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    return()
  endif()
  set(level -O3)
  if(SUPERSONIC_SANITIZE OR SUPERSONIC_FUZZ)
    set(level -O1)  # with checks at each access, unrolled loops take minutes a file to compile
  endif()
  foreach(source ${ARGN})
    if(source MATCHES "_avx512\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "${level};-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx512bf16;-mprefer-vector-width=512;-ffp-contract=fast")
    elseif(source MATCHES "_avx2\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${level};-mavx2;-mfma;-mf16c;-mbmi2;-ffp-contract=fast")
    elseif(source MATCHES "_portable\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${level};-ffp-contract=fast")
    endif()
  endforeach()
endfunction()
